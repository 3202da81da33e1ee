"""Finding, understanding and loading models."""
