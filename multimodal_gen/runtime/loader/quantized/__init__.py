"""Reads quantised weights in the forms that files have them in."""
