"""Networks that make the tokens of an image prompt from the output of an image encoder.

Their parameters are called as in the published files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.norm import LayerNorm

ShapesByName = Mapping[str, tuple[int, ...]]
_HEAD = 64
"""Width of a resampler's heads, which files do not tell."""


class PictureProjection(nn.Module):
    """Makes tokens [B, N, width] from what the image encoder makes of pictures."""

    sees_states: ClassVar[bool]
    """True if it takes the states [B, S, features] of the encoder's last layer but one, False for
    the picture's embedding [B, features]."""
    features: int
    """Width of that."""
    width: int
    """Of tokens."""

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class LinearProjection(PictureProjection):
    """A few tokens from the picture's embedding."""

    sees_states = False

    def __init__(self, shapes: ShapesByName) -> None:
        super().__init__()
        outputs, self.features = shapes["proj.weight"]
        (self.width,) = shapes["norm.weight"]
        self.proj = Linear((outputs, self.features))
        self.norm = LayerNorm(self.width)

    def forward(self, seen: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(seen).unflatten(-1, (-1, self.width)))
        return tokens


class FullProjection(PictureProjection):
    """A token for each state: full face."""

    sees_states = True

    def __init__(self, shapes: ShapesByName) -> None:
        super().__init__()
        hidden, self.features = shapes["proj.0.weight"]
        (self.width,) = shapes["proj.3.weight"]
        layers = Linear((hidden, self.features)), nn.GELU(), Linear((self.width, hidden))
        self.proj = nn.Sequential(*layers, LayerNorm(self.width))

    def forward(self, seen: Tensor) -> Tensor:
        tokens: Tensor = self.proj(seen)
        return tokens


class Resampler(PictureProjection):
    """Learned tokens that attend to the states (Alayrac et al. 2022, arXiv:2204.14198): plus."""

    sees_states = True

    def __init__(self, shapes: ShapesByName) -> None:
        super().__init__()
        _, count, hidden = shapes["latents"]
        _, self.features = shapes["proj_in.weight"]
        (self.width,) = shapes["norm_out.weight"]
        inner, feeding = shapes["layers.0.0.to_q.weight"][0], shapes["layers.0.1.1.weight"][0]
        self.latents = nn.Parameter(torch.empty(1, count, hidden))
        self.proj_in = Linear((hidden, self.features))
        depth = sum(key.endswith(".0.to_q.weight") for key in shapes)
        self.layers = nn.ModuleList(
            _ResamplerLayer((_Resampling(hidden, inner), _feed_forward(hidden, feeding)))
            for _ in range(depth)
        )
        self.proj_out = Linear((self.width, hidden))
        self.norm_out = LayerNorm(self.width)

    def forward(self, seen: Tensor) -> Tensor:
        states = self.proj_in(seen)
        latents = self.latents.expand(len(seen), -1, -1)
        for layer in self.layers:
            latents = layer(states, latents)
        tokens: Tensor = self.norm_out(self.proj_out(latents))
        return tokens


class _ResamplerLayer(nn.ModuleList):
    """An attention, and a feed-forward network."""

    def forward(self, states: Tensor, latents: Tensor) -> Tensor:
        attend, feed = self
        latents = latents + attend(states, latents)
        fed: Tensor = latents + feed(latents)
        return fed


class _Resampling(nn.Module):
    """Attention of the learned tokens to the states and to themselves."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(hidden), LayerNorm(hidden)
        self.to_q = Linear((inner, hidden), bias=False)
        self.to_kv = Linear((2 * inner, hidden), bias=False)
        self.to_out = Linear((hidden, inner), bias=False)

    def forward(self, states: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        context = torch.cat((self.norm1(states), latents), dim=1)
        q, kv = self.to_q(latents), self.to_kv(context)
        heads = [
            each.unflatten(-1, (-1, _HEAD)).transpose(1, 2) for each in (q, *kv.chunk(2, dim=-1))
        ]
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        update: Tensor = self.to_out(attended)
        return update


def _feed_forward(hidden: int, inner: int) -> nn.Sequential:
    layers = Linear((inner, hidden), bias=False), nn.GELU(), Linear((hidden, inner), bias=False)
    return nn.Sequential(LayerNorm(hidden), *layers)


_KINDS: Mapping[str, type[LinearProjection | FullProjection | Resampler]] = {
    "proj.weight": LinearProjection,
    "proj.3.weight": FullProjection,
    "latents": Resampler,
}
"""By a tensor that only this kind has."""


def projection_of(shapes: ShapesByName) -> PictureProjection:
    """Create the network whose tensors have these shapes, without weights. Raises
    InvalidCheckpoint."""
    kind = next((kind for key, kind in _KINDS.items() if key in shapes), None)
    if kind is None:
        raise InvalidCheckpoint(f"image_proj has none of {', '.join(_KINDS)}")
    try:
        with torch.device("meta"):
            return kind(shapes).eval().requires_grad_(False)
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidCheckpoint(f"image_proj: not a {kind.__name__}: {error}") from error
