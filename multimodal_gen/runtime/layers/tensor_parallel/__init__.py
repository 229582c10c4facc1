"""Layers of which each rank of a tensor group has a share."""
