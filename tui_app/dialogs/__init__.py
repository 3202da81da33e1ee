"""Modal questions and explanations."""
