"""Attention backends: each module here is one, and its function `attention` an `Attention`."""
