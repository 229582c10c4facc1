"""Ranks that share an evaluation: the mesh, and the collectives that the layers use."""
