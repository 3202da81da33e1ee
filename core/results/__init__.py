"""Using what a run has made."""
