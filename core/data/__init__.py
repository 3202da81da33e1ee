"""Recognising, checking and reading datasets."""
