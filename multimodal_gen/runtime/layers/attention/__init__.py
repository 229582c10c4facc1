"""Attention: one interface with several backends, selected once per model load."""

from multimodal_gen.runtime.layers.attention.attention import select_attention

__all__ = ["select_attention"]
