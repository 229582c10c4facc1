"""Converts other key layouts to diffusers', without reading tensors.

A converter is a function on a dict of tensors that renames, splits, joins and swaps rows. It is run
on row numbers instead of weights; its output shows where each row of diffusers' tensors is in the
file. So tensors are read when needed, and those that are only renamed or split stay in the file's
pages. Most converters are diffusers' own.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.stored import Rearranged, Span, Stored, Transposed

_MAX_ROWS = 1 << 26

Converter = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def convert(
    stored: Mapping[str, Stored], converter: Converter, what: str
) -> tuple[dict[str, Stored], list[str]]:
    """Return the tensors with the names and pieces that `converter` produces, and the unused names.

    Raises InvalidCheckpoint that names a tensor the converter misses; `what` is the layout's name
    in errors.
    """
    origins = list(stored.values())
    # One number is skipped between two tensors, so that no run of numbers spans both.
    starts = list(itertools.accumulate((_num_rows(each) + 1 for each in origins), initial=0))
    if starts[-1] > _MAX_ROWS:
        raise InvalidCheckpoint(f"{what}: its tensors have {starts[-1]} rows, more than any model")
    numbers = {
        name: torch.arange(start, start + _num_rows(tensor)).reshape(_skeleton(tensor))
        for (name, tensor), start in zip(stored.items(), starts, strict=False)
    }
    used: set[int] = set()
    converted: dict[str, Stored] = {}
    for name, rows in _run(converter, numbers, what).items():
        spans = []
        for first, count in _runs(rows.reshape(-1)):
            owner = bisect_right(starts, first) - 1
            used.add(owner)
            start = first - starts[owner]
            spans.append(Span(origins[owner], start, start + count))
        converted[name] = _rearranged(spans, rows, f"{what}: {name}")
    return converted, [name for index, name in enumerate(stored) if index not in used]


def _runs(numbers: Tensor) -> Iterator[tuple[int, int]]:
    """First number and length of each run of consecutive numbers."""
    breaks = (numbers[1:] != numbers[:-1] + 1).nonzero().reshape(-1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    for begin, end in itertools.pairwise(edges):
        if begin < end:
            yield int(numbers[begin]), end - begin


def _run(converter: Converter, numbers: dict[str, Tensor], what: str) -> Mapping[str, Tensor]:
    try:
        return converter(dict(numbers))
    except KeyError as error:
        raise InvalidCheckpoint(f"{what}: missing: {error.args[0]}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise InvalidCheckpoint(f"{what}: its tensors don't fit together: {error}") from error


def _num_rows(tensor: Stored) -> int:
    return tensor.shape[0] if tensor.shape else 1


def _skeleton(tensor: Stored) -> tuple[int, ...]:
    """Shape with the same number of dimensions, all but the first of size 1."""
    return (tensor.shape[0], *[1] * (len(tensor.shape) - 1)) if tensor.shape else ()


def _rearranged(spans: Sequence[Span], rows: Tensor, what: str) -> Stored:
    """Tensor made of `spans`, with as many dimensions as `rows`, or transposed."""
    if not spans:
        raise InvalidCheckpoint(f"{what}: is empty")
    first = spans[0].origin
    if rows.dim() == 2 and len(rows) == 1 < rows.shape[1] and len(first.shape) == 2:
        return Transposed(first)
    dropped = first.shape[rows.dim() :]
    if any(size != 1 for size in dropped) or any(
        span.origin.shape[1:] != first.shape[1:] for span in spans
    ):
        raise InvalidCheckpoint(f"{what}: its parts differ in shape")
    if len(first.shape) == 1:  # its numbers may come in another shape
        shape = tuple(rows.shape)
    else:
        shape = (rows.numel(), *first.shape[1 : rows.dim()]) if rows.dim() else ()
    whole = len(spans) == 1 and shape == first.shape
    return first if whole else Rearranged(tuple(spans), shape)
