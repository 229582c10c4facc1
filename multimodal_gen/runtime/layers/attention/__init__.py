"""Attention: one function, several backends, chosen once when a model is loaded."""

from multimodal_gen.runtime.layers.attention.attention import Attention, select_attention

__all__ = ["Attention", "select_attention"]
