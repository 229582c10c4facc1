"""Quantised weights, as headers of files describe them."""
