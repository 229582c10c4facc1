"""Places where the parts of a LoRA apply: modules of a pipeline, or some of their channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora_forms import Decomposed
from multimodal_gen.runtime.layers.lora_hooks import LAYERS, NORMS
from multimodal_gen.runtime.layers.lora_terms import Difference, LowRank, Term
from multimodal_gen.runtime.loader.lora.forms import (
    LayerShape,
    Misfit,
    change_of,
    difference_of,
)
from multimodal_gen.runtime.loader.lora.names import LoraPlace
from multimodal_gen.runtime.loader.lora.pairs import Pair


class Target(NamedTuple):
    """A module of ours that has the weight of one or more of diffusers' modules."""

    module: nn.Module
    start: int
    shape: tuple[int, ...]
    """Shape of the checkpoint's weight for it."""
    groups: int = 1
    """Groups of a convolution."""

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
        supported = isinstance(module, (*LAYERS, *NORMS))
        if supported and isinstance(weight, Tensor):
            groups = getattr(module, "groups", 1)
            yield name, Target(module, 0, tuple(weight.shape), groups)


def joined(targets: list[Target]) -> list[Target]:
    """Targets of one module of a file; those next to each other as one."""
    found = targets[:1]
    for target in targets[1:]:
        if (whole := found[-1].followed_by(target)) is not None:
            found[-1] = whole
        else:
            found.append(target)
    return found


def misfit(pair: Pair, targets: list[Target]) -> str | None:
    """Say what does not fit; None if all does."""
    shape = _shape_of(targets)
    if pair.has_change and not all(target.takes_rank for target in targets):
        return f"low-rank weights can't be applied to it; the model has {shape}"
    if "bias" in pair.parts and not all(target.takes_bias for target in targets):
        return "it has no bias"
    try:
        change_of(pair, shape)
        difference_of(pair, shape)
    except Misfit as error:
        return str(error)
    return None


def _shape_of(targets: list[Target]) -> LayerShape:
    """Shape of all of them, one below the other."""
    channels = sum(target.shape[0] for target in targets)
    return LayerShape(channels, targets[0].shape[1:], targets[0].groups)


def terms_of(
    pair: Pair, targets: list[Target], place: LoraPlace, device: torch.device
) -> Iterator[tuple[nn.Module, Term]]:
    """This rank's terms for each target, on the device. Raises InvalidCheckpoint for numbers that
    are not finite, or become so in the layer's data type."""
    for module, term in _whole_terms(pair, targets, place):
        own = module.part_of(term) if isinstance(module, Linear | Elementwise) else term
        if own is not None:
            yield module, own.to(device)


def _whole_terms(
    pair: Pair, targets: list[Target], place: LoraPlace
) -> Iterator[tuple[nn.Module, Term]]:
    """Terms for all of each target, still in the file's memory; none that would add nothing."""
    shape = _shape_of(targets)
    for whole in (change_of(pair, shape), difference_of(pair, shape)):
        if whole is None:
            continue
        ordered = _ordered(whole, place)
        start = 0
        for target in targets:
            part = ordered.outputs([range(start, start + target.shape[0])])
            start += target.shape[0]
            own = _used(_in_dtype(part, target.module, pair.name)) if part is not None else None
            if own is not None:
                yield target.module, own.placed(target.start)


def _ordered(term: Term, place: LoraPlace) -> Term:
    """The term with its channels in the order of the place's modules."""
    rows = [range(term.channels)]
    if place.swapped:
        half = term.channels // 2
        rows = [range(half, 2 * half), range(half)]
    elif place.head:
        starts, count = range(0, term.channels, place.head), len(place.modules)
        rows = [range(at, at + place.head) for i in range(count) for at in starts[i::count]]
    ordered = term if len(rows) == 1 else term.outputs(rows)
    assert ordered is not None
    return ordered


def _used(term: Term) -> Term | None:
    """The term without what is all 0; None if nothing is left."""
    if isinstance(term, LowRank) and not term.up.any():
        return (
            None
            if term.bias is None
            else _used(Difference(None, term.bias, term.start, term.scale))
        )
    if isinstance(term, Difference):
        weight, bias = (
            each if each is not None and each.any() else None for each in (term.weight, term.bias)
        )
        return None if weight is bias is None else replace(term, weight=weight, bias=bias)
    if isinstance(term, LowRank) and term.bias is not None and not term.bias.any():
        return replace(term, bias=None)
    return term


def _in_dtype(term: Term, module: nn.Module, name: str) -> Term:
    """The term in the layer's data type, but for norms. Raises InvalidCheckpoint."""
    dtype = module.dtype if isinstance(module, Linear) else module.weight.dtype
    assert isinstance(dtype, torch.dtype)
    kept = [term.magnitude] if isinstance(term, Decomposed) else []

    def converted(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        own = tensor if any(tensor is each for each in kept) else tensor.to(dtype)
        if not own.isfinite().all():
            raise InvalidCheckpoint(f"{name}: its numbers are not finite, or too large for {dtype}")
        return own

    return term.mapped(converted)
