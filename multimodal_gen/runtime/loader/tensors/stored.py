"""Tensors in weight files: name, shape and type are known, the data is read on demand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.storage import PlainStorage, Storage

_CHUNK = 1 << 18
"""Numbers computed at a time: what fits into a cache. A whole tensor at once takes up to ten times
as long."""
_PIECE = 1 << 22
"""Numbers of a matrix that are quantised at a time."""
_WIDTHS = {"F16": 2, "BF16": 2}
"""Bytes of the numbers that can be kept narrower than a layer computes."""


class Stored(Protocol):
    """One tensor of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """Type as named by the file's format."""

    @property
    def computed(self) -> bool:
        """True if reading takes time and memory, as with quantised tensors."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Read a range of dim 0 (a scalar has one row): the file's own pages if nothing is
        computed.

        Floating point of any width, or integers if the file has those.
        """


@runtime_checkable
class Quantized(Stored, Protocol):
    """One matrix of a file that a linear layer can keep as it is stored."""

    def keep(self, start: int, stop: int) -> Storage:
        """A range of its rows in the form of the file: the file's own pages where possible."""


class Span(NamedTuple):
    """Rows `start` to `stop` of a tensor."""

    origin: Stored
    start: int
    stop: int

    def chunks(self) -> Iterable[Tensor]:
        """Yield its rows in ranges that are cheap to compute."""
        step = max(1, _CHUNK // max(1, math.prod(self.origin.shape[1:])))
        step = step if self.origin.computed else max(1, self.stop - self.start)
        for start in range(self.start, self.stop, step):
            yield self.origin.rows(start, min(start + step, self.stop))


@dataclass(frozen=True, eq=False)
class Rearranged:
    """Rows of other tensors in a new arrangement."""

    spans: tuple[Span, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.spans[0].origin.dtype

    @property
    def computed(self) -> bool:
        return any(span.origin.computed for span in self.spans)

    def rows(self, start: int, stop: int) -> Tensor:
        whole = [chunk for span in self.spans for chunk in span.chunks()]
        joined = whole[0] if len(whole) == 1 else torch.cat(whole)
        return joined.reshape(self.shape or (1,))[start:stop]


@dataclass(frozen=True, eq=False)
class Transposed:
    """A transposed matrix."""

    origin: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        return self.origin.shape[::-1]

    @property
    def dtype(self) -> str:
        return self.origin.dtype

    @property
    def computed(self) -> bool:
        return self.origin.computed

    def rows(self, start: int, stop: int) -> Tensor:
        return self.origin.rows(0, self.origin.shape[0]).T[start:stop]


def spans_of(stored: Stored) -> tuple[Span, ...]:
    """Source rows that a tensor consists of, in order."""
    if isinstance(stored, Rearranged):
        return stored.spans
    return (Span(stored, 0, stored.shape[0] if stored.shape else 1),)


def assemble(
    sources: Sequence[Stored], shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Concatenate the tensors along dim 0, in `dtype`.

    Tensors that are contiguous in one file, in `dtype`, stay in its pages; others are cast part by
    part, so that a second copy is never held.
    """
    spans = _merged([span for source in sources for span in spans_of(source)])
    if len(spans) == 1 and not spans[0].origin.computed:
        span = spans[0]
        return span.origin.rows(span.start, span.stop).reshape(shape).to(device, dtype)
    joined = torch.empty(shape, dtype=dtype, device=device)
    flat, at = joined.view(-1), 0
    for span in spans:
        for chunk in span.chunks():
            flat[at : at + chunk.numel()].copy_(chunk.reshape(-1))
            at += chunk.numel()
    return joined


def pieces(sources: Sequence[Stored], columns: int) -> Iterator[Tensor]:
    """The rows of a matrix, a bounded number [n, columns] at a time."""
    step = max(1, _PIECE // columns)
    for leaf in (leaf for source in sources for span in spans_of(source) for leaf in _leaves(span)):
        for start in range(leaf.start, leaf.stop, step):
            rows = leaf.origin.rows(start, min(start + step, leaf.stop))
            yield rows.reshape(-1, columns)


def storages(
    sources: Sequence[Stored],
    shape: torch.Size,
    dtype: torch.dtype,
    *,
    keep_narrow: bool,
) -> list[Storage]:
    """The rows of a matrix of this shape as they are stored, for a layer that computes in `dtype`.

    Empty if none of them is quantised; with `keep_narrow`, numbers that are narrower than `dtype`
    are kept as well.
    """
    spans = _merged(
        [leaf for source in sources for span in spans_of(source) for leaf in _leaves(span)]
    )
    if len(shape) != 2 or not any(_is_kept(span, shape[1], dtype, keep_narrow) for span in spans):
        return []
    return [_storage(span, shape[1], dtype) for span in spans]


def _leaves(span: Span) -> Iterator[Span]:
    """The rows of a span in tensors that are not rearranged themselves."""
    if not isinstance(span.origin, Rearranged):
        yield span
        return
    before = 0
    for inner in span.origin.spans:
        count = inner.stop - inner.start
        first, last = max(span.start - before, 0), min(span.stop - before, count)
        if first < last:
            yield from _leaves(Span(inner.origin, inner.start + first, inner.start + last))
        before += count


def _is_kept(span: Span, columns: int, dtype: torch.dtype, keep_narrow: bool) -> bool:
    origin = span.origin
    if isinstance(origin, Quantized):
        return origin.shape[1:] == (columns,)
    narrow = _WIDTHS.get(origin.dtype, 8) < dtype.itemsize
    return keep_narrow and narrow and not origin.computed


def _storage(span: Span, columns: int, dtype: torch.dtype) -> Storage:
    if isinstance(span.origin, Quantized) and span.origin.shape[1:] == (columns,):
        return span.origin.keep(span.start, span.stop)
    numbers = span.origin.rows(span.start, span.stop).reshape(-1, columns)
    return PlainStorage(numbers if numbers.dtype.itemsize < dtype.itemsize else numbers.to(dtype))


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].origin is span.origin and merged[-1].stop == span.start:
            merged[-1] = merged[-1]._replace(stop=span.stop)
        else:
            merged.append(span)
    return merged
