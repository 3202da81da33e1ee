"""The Textual application in front of the engine."""
