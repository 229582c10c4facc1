"""Weights in GGUF's blocks."""
