"""Curves of any length as lines of text: what is kept of them, where axes get their ticks, how they are drawn."""
