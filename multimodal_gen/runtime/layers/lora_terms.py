"""Terms of LoRAs: what they add to the output of one layer, or to some of its channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class LoraLayer(Protocol):
    """The layer that a term changes, as terms see it."""

    @property
    def channel_dim(self) -> int:
        """Dimension of the channels in inputs and outputs."""

    def multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        """Product with another weight of the layer's kind, without a bias."""

    def mix(self, weight: Tensor, hidden: Tensor) -> Tensor:
        """Product over the channels alone with a weight [channels, rank, ...]."""

    def base(self, x: Tensor, rows: range) -> Tensor:
        """These outputs without bias and LoRAs."""

    def numbers(self, rows: range) -> Tensor:
        """These rows of the weight as numbers."""

    def total(self, sums: Tensor) -> Tensor:
        """Sum of what ranks have, each for its inputs; may be in place."""


class Term(ABC):
    """One LoRA's term for one layer's output, or for some of its channels."""

    bias: Tensor | None
    scale: float
    """alpha / rank"""
    start: int
    """First output channel that it applies to."""

    @property
    @abstractmethod
    def channels(self) -> int: ...

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of inputs."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The change of the weight [channels, inputs, ...], without the scale."""

    @abstractmethod
    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor | None:
        """Return what it adds, but for `factor` and the bias; None if that is nothing."""

    @abstractmethod
    def rows(self, own: Sequence[range]) -> Self:
        """The term for these of its channels, one after the other; the bias is as it was."""

    @abstractmethod
    def columns(self, own: Sequence[range]) -> Self:
        """The term for these of its inputs, one after the other."""

    def factor(self, scale: float) -> float:
        """Factor of the product and the bias at a request's scale."""
        return self.scale * scale

    @property
    def tensors(self) -> list[Tensor]:
        return [*_tensors_in(self)]

    def to(self, device: torch.device) -> Self:
        return self.mapped(lambda tensor: tensor.to(device).contiguous())

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The term with each tensor changed."""
        changed: Self = _mapped(self, change)
        return changed

    def outputs(self, own: Sequence[range]) -> Self | None:
        """The term for a layer with these outputs of the whole one, if it changes any."""
        rows = [part for each in own if (part := _within(self, each))]
        if not rows:
            return None
        bias = None if self.bias is None else chosen_rows(self.bias, rows)
        return self.rows(rows)._with(bias=bias, start=_place(self.start, own))

    def inputs(self, own: Sequence[range], *, bias: bool) -> Self | None:
        """The term for a layer with these inputs of the whole one, with or without the bias."""
        return self.columns(own)._with(bias=self.bias if bias else None)

    def placed(self, start: int) -> Self:
        """The term for the channels that begin there."""
        return self._with(start=start)

    def _with(self, **fields: Any) -> Self:
        return replace(self, **fields)  # type: ignore[type-var]


@dataclass(frozen=True)
class LowRank(Term):
    """up(down(x)); `down` [rank, inputs, ...], `up` [channels, rank, ...]."""

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float
    start: int

    @property
    def channels(self) -> int:
        return len(self.up)

    @property
    def width(self) -> int:
        return self.down.shape[1]

    def dense(self) -> Tensor:
        flat = self.up.flatten(1) @ self.down.flatten(1)
        return flat.view(self.channels, *self.down.shape[1:])

    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor:
        return layer.mix(self.up, layer.multiply(self.down, x))

    def rows(self, own: Sequence[range]) -> LowRank:
        return replace(self, up=chosen_rows(self.up, own))

    def columns(self, own: Sequence[range]) -> LowRank:
        return replace(self, down=chosen_columns(self.down, own))


@dataclass(frozen=True)
class Difference(Term):
    """Differences of a layer's weight and bias, or of some rows."""

    weight: Tensor | None
    bias: Tensor | None
    start: int
    scale: float = 1.0

    @property
    def channels(self) -> int:
        return next(len(tensor) for tensor in self.tensors)

    @property
    def width(self) -> int:
        return 0 if self.weight is None else self.weight.shape[1]

    def dense(self) -> Tensor:
        assert self.weight is not None
        return self.weight

    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor | None:
        return None if self.weight is None else layer.multiply(self.weight, x)

    def rows(self, own: Sequence[range]) -> Difference:
        weight = None if self.weight is None else chosen_rows(self.weight, own)
        return replace(self, weight=weight)

    def columns(self, own: Sequence[range]) -> Difference:
        return (
            self if self.weight is None else replace(self, weight=chosen_columns(self.weight, own))
        )

    def inputs(self, own: Sequence[range], *, bias: bool) -> Difference | None:
        part = super().inputs(own, bias=bias)
        return part if part is not None and part.tensors else None


def _within(term: Term, own: range) -> range:
    """Rows of the term for these outputs of the whole layer."""
    rows = range(own.start - term.start, own.stop - term.start)
    return range(max(0, rows.start), min(term.channels, rows.stop))


def _place(start: int, own: Sequence[range]) -> int:
    """Number of these outputs that are before output `start` of the whole layer."""
    return sum(min(len(each), max(0, start - each.start)) for each in own)


def chosen_rows(tensor: Tensor, rows: Sequence[range]) -> Tensor:
    """These rows, one after the other."""
    return torch.cat([tensor[each.start : each.stop] for each in rows])


def chosen_columns(tensor: Tensor, columns: Sequence[range]) -> Tensor:
    """These columns, one after the other."""
    return torch.cat([tensor[:, each.start : each.stop] for each in columns], dim=1)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Term):
        for each in fields(value):  # type: ignore[arg-type]
            yield from _tensors_in(getattr(value, each.name))
    elif isinstance(value, tuple):
        for element in value:
            yield from _tensors_in(element)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Term):
        own = {each.name: getattr(value, each.name) for each in fields(value) if each.init}  # type: ignore[arg-type]
        return replace(value, **{name: _mapped(part, change) for name, part in own.items()})  # type: ignore[type-var]
    return tuple(_mapped(each, change) for each in value) if isinstance(value, tuple) else value
