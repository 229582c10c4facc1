"""Generates on a running server, in place of an engine of the command's own."""
