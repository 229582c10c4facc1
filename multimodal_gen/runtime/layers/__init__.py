"""Layers shared by the native denoisers."""
