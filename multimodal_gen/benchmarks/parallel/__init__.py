"""Counts what ranks compute and exchange, and projects it to eight GPUs."""
