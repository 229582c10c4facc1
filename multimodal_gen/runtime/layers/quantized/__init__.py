"""Weights of linear layers in the forms that files have them in."""
