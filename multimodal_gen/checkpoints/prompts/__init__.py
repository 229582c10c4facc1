"""Prompts in checkpoints: examples, known words, tokens."""
