"""Decodes in bands of rows, one on each rank, which exchange what their layers need."""
