"""Measures the attention backends, and prints the rows of their table for this GPU."""
