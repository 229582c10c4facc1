"""First guesses of the memory that work takes beside the weights, and the limit that it sets."""

from __future__ import annotations

import math

import msgspec

from multimodal_gen.messages.model_info import Defaults, ModelInfo

TEXT_TOKENS = 512
"""Tokens of a text, as most models pad it."""
_TOKEN_SIDE = 16
"""Pixels per token and side, as in most models."""
_FRAMES_PER_LATENT = 4


def tokens_of(defaults: Defaults) -> int:
    """Tokens of a picture or video of the default size, with its text."""
    frames = (defaults.num_frames - 1) // _FRAMES_PER_LATENT + 1
    return frames * defaults.width * defaults.height // _TOKEN_SIDE**2 + TEXT_TOKENS


def evaluation_bytes(parameters: int, tokens: int) -> int:
    """Activations of a transformer: its width grows with the root of its parameters."""
    return int(4 * math.sqrt(parameters) * tokens)


def within_memory(model: ModelInfo, parameters: int, memory_bytes: int) -> ModelInfo:
    """`model` with the limit that `memory_bytes` of free memory sets; 0: unknown.

    A token takes at least as many bytes as the root of the parameters, to which the width of a
    transformer is proportional: a low estimate, so that what might fit is tried. Decoding sets no
    limit, as it is done in tiles.
    """
    if not memory_bytes or not parameters:
        return model
    tokens = memory_bytes / math.sqrt(parameters)
    volume = int(tokens * max(model.size_multiple, _TOKEN_SIDE) ** 2)
    limits = msgspec.structs.replace(model.limits, max_volume=volume)
    return msgspec.structs.replace(model, limits=limits)
