"""Ranks that share one evaluation: the mesh, and the collectives that the layers use."""
