"""Compiled blocks: graphs that hold for all tokens and rows."""
