"""First guesses of the memory that work takes beside the weights, for requests of usual size."""

from __future__ import annotations

import math

from multimodal_gen.messages.model_info import Defaults

TEXT_TOKENS = 512
"""Tokens of a text, as most models pad it."""
_TOKEN_SIDE = 16
"""Pixels per token and side, as in most models."""
_FRAMES_PER_LATENT = 4
_PIXEL_VALUES = 1000
"""Values per decoded pixel that are alive at once: some tensors of a decoder's last layers."""


def tokens_of(defaults: Defaults) -> int:
    """Tokens of a picture or video of the default size, with its text."""
    frames = (defaults.num_frames - 1) // _FRAMES_PER_LATENT + 1
    return frames * defaults.width * defaults.height // _TOKEN_SIDE**2 + TEXT_TOKENS


def evaluation_bytes(parameters: int, tokens: int) -> int:
    """Activations of a transformer: its width grows with the root of its parameters."""
    return int(4 * math.sqrt(parameters) * tokens)


def decoding_bytes(defaults: Defaults, itemsize: int) -> int:
    """Activations of a decoder that makes a picture, or the frames of one latent of a video."""
    frames = 1 if defaults.num_frames == 1 else _FRAMES_PER_LATENT
    return defaults.width * defaults.height * frames * _PIXEL_VALUES * itemsize
