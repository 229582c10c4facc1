"""Layers that the native denoisers share."""
