"""Places where the parts of a LoRA apply: modules of a pipeline, or some of their channels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import Difference, LowRank, Term
from multimodal_gen.runtime.layers.lora_hooks import LAYERS, NORMS
from multimodal_gen.runtime.loader.lora.pairs import Pair


class Target(NamedTuple):
    """A module of ours that has the weight of one or more of diffusers' modules."""

    module: nn.Module
    start: int
    shape: tuple[int, ...]
    """Shape of the checkpoint's weight for it."""

    @property
    def takes_rank(self) -> bool:
        """True if its weight is a matrix or a kernel."""
        return isinstance(self.module, (Linear, *LAYERS))

    @property
    def takes_bias(self) -> bool:
        """True if something can be added to its output."""
        return not isinstance(self.module, Elementwise) or hasattr(self.module, "bias")

    def followed_by(self, other: Target) -> Target | None:
        """Both as one, if they are next to each other in one module."""
        start, channels = self.start + self.shape[0], self.shape[0] + other.shape[0]
        if (other.module, other.start, other.shape[1:]) != (self.module, start, self.shape[1:]):
            return None
        return Target(self.module, self.start, (channels, *self.shape[1:]))


def targets_in(root: nn.Module) -> Iterator[tuple[str, Target]]:
    """Targets by diffusers' name; one of our layers may combine several in one weight."""
    for name, module in root.named_modules():
        if isinstance(module, Linear | Elementwise):
            for segment in module.segments:
                theirs, shape = segment.name.removesuffix(".weight"), module.whole[1:]
                yield theirs, Target(module, segment.start, (segment.rows, *shape))
            continue
        weight = getattr(module, "weight", None)
        supported = isinstance(module, (*LAYERS, *NORMS)) and getattr(module, "groups", 1) == 1
        if supported and isinstance(weight, Tensor):
            yield name, Target(module, 0, tuple(weight.shape))


def joined(targets: list[Target]) -> list[Target]:
    """Targets of one module of a file; those next to each other as one."""
    found = targets[:1]
    for target in targets[1:]:
        if (whole := found[-1].followed_by(target)) is not None:
            found[-1] = whole
        else:
            found.append(target)
    return found


def reshape(pair: Pair, targets: list[Target]) -> None:
    """Give the parts the layer's number of dimensions: some files have matrices for kernels, and
    kernels of 1 for matrices."""
    tail = targets[0].shape[1:]
    pair.down, pair.weight = _with_tail(pair.down, tail), _with_tail(pair.weight, tail)
    if pair.down is not None:
        pair.up = _with_tail(pair.up, (len(pair.down), *[1] * (len(tail) - 1)))


def _with_tail(tensor: Tensor | None, tail: tuple[int, ...]) -> Tensor | None:
    if tensor is None or tensor.dim() < 2 or tensor.numel() != len(tensor) * math.prod(tail):
        return tensor
    return tensor.reshape(len(tensor), *tail)


def misfit(pair: Pair, targets: list[Target]) -> str | None:
    """Say what does not fit; None if all does."""
    channels, tail = sum(target.shape[0] for target in targets), targets[0].shape[1:]
    model = f"the model has {[channels, *tail]}"
    has_rank = pair.has_rank
    if has_rank and not all(target.takes_rank for target in targets):
        return f"low-rank weights can't be applied to it; {model}"
    if has_rank and not _rank_fits(pair, channels, tail):
        return f"down {_shape(pair.down)}, up {_shape(pair.up)}, {model}"
    if pair.weight is not None and list(pair.weight.shape) != [channels, *tail]:
        return f"difference {_shape(pair.weight)}, {model}"
    if pair.bias is not None and not all(target.takes_bias for target in targets):
        return "it has no bias"
    for bias in (pair.bias, pair.lora_bias):
        if bias is not None and list(bias.shape) != [channels]:
            return f"bias {_shape(bias)}, {model}"
    return None


def terms_of(
    pair: Pair, targets: list[Target], *, swapped: bool, device: torch.device
) -> Iterator[tuple[nn.Module, Term]]:
    """This rank's terms for each target, on the device. Raises InvalidCheckpoint for numbers that
    are not finite, or become so in the layer's data type."""
    for module, term in _whole_terms(pair, targets, swapped=swapped):
        own = module.part_of(term) if isinstance(module, Linear | Elementwise) else term
        if own is not None:
            yield module, own.to(device)


def _whole_terms(
    pair: Pair, targets: list[Target], *, swapped: bool
) -> Iterator[tuple[nn.Module, Term]]:
    """Terms for all of each target, in the file's memory."""
    counts = [target.shape[0] for target in targets]

    def rows(tensor: Tensor | None, at: int) -> Tensor | None:
        """Rows for one target, still in the file's memory; None if they are all 0."""
        if tensor is None:
            return None
        whole = torch.cat(tensor.chunk(2)[::-1]) if swapped else tensor
        part = _in_dtype(whole.split_with_sizes(counts)[at], targets[at].module, pair.name)
        return part if part.any() else None

    for at, target in enumerate(targets):
        up, bias = rows(pair.up, at), rows(pair.lora_bias, at)
        if pair.down is not None and up is not None:
            down = _in_dtype(pair.down, target.module, pair.name)
            yield target.module, LowRank(down, up, bias, pair.scale, target.start)
        elif bias is not None:
            yield target.module, Difference(None, bias, target.start, pair.scale)
        weight, bias = rows(pair.weight, at), rows(pair.bias, at)
        if weight is not None or bias is not None:
            yield target.module, Difference(weight, bias, target.start)


def _rank_fits(pair: Pair, channels: int, tail: tuple[int, ...]) -> bool:
    if pair.down is None or pair.up is None:
        return False
    rank = len(pair.down)
    return (
        rank > 0
        and list(pair.down.shape) == [rank, *tail]
        and list(pair.up.shape) == [channels, rank, *[1] * (len(tail) - 1)]
    )


def _in_dtype(tensor: Tensor, module: nn.Module, name: str) -> Tensor:
    dtype = module.dtype if isinstance(module, Linear) else module.weight.dtype
    assert isinstance(dtype, torch.dtype)
    converted = tensor.to(dtype)
    if not converted.isfinite().all():
        raise InvalidCheckpoint(f"{name}: its numbers are not finite, or too large for {dtype}")
    return converted


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
