"""Evaluations that a device runs as one graph, recorded once for each signature."""
