"""The runner process and the training that it hosts."""
