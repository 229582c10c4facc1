"""Adaptive layer norm (Peebles & Xie 2022, arXiv:2212.09748), with shifts and scales as
arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.layers.fused import choice
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import LoraRows


def block_vectors(
    layers: Sequence[Linear], embedded: Tensor, dim: int, lora: LoraRows | None
) -> Tensor:
    """Modulation vectors [B, vectors, 1, dim] of these layers for `embedded` [B, E], layer by
    layer. Each block has its own layer, which can be loaded and freed with the block."""
    vectors = torch.cat([layer(embedded, lora) for layer in layers], dim=1)
    return vectors.view(len(embedded), -1, 1, dim)


def split_vectors(vectors: Tensor, counts: Sequence[int]) -> list[Sequence[Tensor]]:
    """Split the vectors [B, vectors, 1, dim] into `counts[i]` vectors for each i, each [B, 1,
    dim]."""
    each = vectors.unbind(1)
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [each[at : at + count] for at, count in zip(starts, counts, strict=True)]


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm(x) * scale + shift for x [B, S, D] and shift, scale [B, 1, D], which may be of a
    wider type: then all is computed in that, and rounded once.

    The caller has added 1 to `scale`: once for all blocks, not in each of them.
    """
    alone = not torch.compiler.is_compiling() and scale.shape[:2] == (1, 1)
    if alone and scale.dtype == x.dtype:  # one row: a pass less over memory
        return F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), eps)
    if (kernels := _kernels_for(x, scale)) is not None:
        return kernels.norm(x, scale, shift, eps)
    normalised = F.layer_norm(x.to(scale.dtype), x.shape[-1:], eps=eps)
    return _rounded_addcmul(shift, normalised, scale, x)


def modulated_rms_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """RMSNorm(x) * scale + shift, like `modulated_norm`."""
    if (kernels := _kernels_for(x, scale)) is not None:
        return kernels.norm(x, scale, shift, eps, centred=False)
    return torch.addcmul(shift, F.rms_norm(x, x.shape[-1:], None, eps), scale)


def gated_add(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate * update for x, update [B, S, D] and gate [B, 1, D], which may be of a wider type:
    then all is computed in that, and rounded once."""
    return _rounded_addcmul(x, gate, update, x)


def gated_add_and_norm(
    x: Tensor, gate: Tensor, update: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`gated_add`, and the `modulated_norm` of its result."""
    if (kernels := _kernels_for(x, scale)) is not None:
        return kernels.add_norm(x, gate, update, scale, shift, eps)
    x = gated_add(x, gate, update)
    return x, modulated_norm(x, shift, scale, eps)


def _kernels_for(x: Tensor, vector: Tensor) -> choice.Kernels | None:
    """Fused kernels, for a vector a row and not one a token."""
    return choice.kernels_for(x) if vector.shape[1] == 1 else None


def _rounded_addcmul(x: Tensor, a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """x + a * b, of the shape and type of `like`."""
    if x.dtype == a.dtype == b.dtype == like.dtype:
        return torch.addcmul(x, a, b)
    if torch.compiler.is_compiling():  # which takes no `out` of another type
        return torch.addcmul(x, a, b).to(like.dtype)
    return torch.addcmul(x, a, b, out=torch.empty_like(like))


def by_group(
    apply: Callable[..., Tensor],
    counts: Sequence[int],
    tokens: Sequence[Tensor],
    vectors: Sequence[Tensor],
) -> Tensor:
    """`apply` to groups of consecutive tokens, such as those of a given first frame, joined.

    `counts` are the groups' tokens of `tokens`, each [B, S, D]; group g gets number g of `vectors`,
    each [B, G, D], as [B, 1, D].
    """
    if len(counts) == 1:
        return apply(*tokens, *vectors)
    parts = (
        *(each.split_with_sizes(list(counts), dim=1) for each in tokens),
        *(each.split(1, dim=1) for each in vectors),
    )
    return torch.cat([apply(*group) for group in zip(*parts, strict=True)], dim=1)


def modulate_groups_(x: Tensor, counts: Sequence[int], vectors: Sequence[Sequence[Tensor]]) -> None:
    """x * scale + shift in place, for groups of so many consecutive tokens of x [B, S, D]:
    `vectors` are shift and scale [B, 1, D] of each."""
    for part, (shift, scale) in zip(x.split([*counts], dim=1), vectors, strict=True):
        part.mul_(scale).add_(shift) if torch.compiler.is_compiling() else torch.addcmul(
            shift, part, scale, out=part
        )


def add_groups_(groups: Sequence[Tensor], gates: Sequence[Tensor], update: Tensor) -> None:
    """x + gate * update in place, for such groups of x and update [B, S, D] with a gate [B, 1, D]
    each."""
    added = update.split([group.shape[1] for group in groups], dim=1)
    for group, gate, part in zip(groups, gates, added, strict=True):
        group.addcmul_(gate, part)
