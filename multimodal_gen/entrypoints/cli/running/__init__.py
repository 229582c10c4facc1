"""Generates the requests of a command, and shows how far they are."""
