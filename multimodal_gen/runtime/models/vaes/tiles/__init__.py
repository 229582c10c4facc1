"""Decodes in overlapping tiles: their geometry, their blending, and their order over ranks."""
