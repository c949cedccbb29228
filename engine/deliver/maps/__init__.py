"""The shipped delivery maps."""
