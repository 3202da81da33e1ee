"""A run's folder: journal, state, commands, checkpoints, and starting a runner on it."""
