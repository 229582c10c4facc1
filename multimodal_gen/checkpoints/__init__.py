"""Describes checkpoints on disk from headers and JSON alone, read as data. No torch here."""
