"""Attention: one function with several backends, selected once per model load."""

from multimodal_gen.runtime.layers.attention.attention import Attention, select_attention

__all__ = ["Attention", "select_attention"]
