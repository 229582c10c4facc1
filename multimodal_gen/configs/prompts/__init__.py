"""Prompts as text with weights."""
