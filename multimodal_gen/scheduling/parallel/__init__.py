"""Picks how ranks share an evaluation, by a model of bytes and time. Pure."""
