"""Describes a checkpoint, and the memory that it needs, for `multimodal-gen models PATH`."""
