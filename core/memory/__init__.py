"""What a run will cost in bytes."""
