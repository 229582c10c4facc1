"""From other key layouts to diffusers', without reading a tensor.

A converter is a function on a dict of tensors that renames, splits, joins and swaps rows. It is run
on row numbers in place of weights; what it returns says where each row of diffusers' tensors lies
in the file. So tensors are read when they are needed, and those that are only renamed or split stay
in the file's pages. Most converters are diffusers' own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.stored import Rearranged, Span, Stored, Transposed

Converter = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def convert(
    stored: Mapping[str, Stored], converter: Converter, what: str
) -> tuple[dict[str, Stored], list[str]]:
    """The tensors under the names, and in the pieces, that `converter` makes of them, and the names
    of those that it had no use for.

    Raises InvalidCheckpoint that names a tensor which the converter misses; `what` is what errors
    call the layout.
    """
    origins = list(stored.values())
    sizes = [_num_rows(tensor) for tensor in origins]
    starts = list(itertools.accumulate(sizes, initial=0))
    numbers = {
        name: torch.arange(start, start + size).reshape(_skeleton(tensor))
        for (name, tensor), start, size in zip(stored.items(), starts, sizes, strict=False)
    }
    found = _run(converter, numbers, what)
    used = torch.zeros(starts[-1] + 1, dtype=torch.bool)
    converted = {}
    for name, rows in found.items():
        used[rows.reshape(-1)] = True
        converted[name] = _traced(name, rows, origins, torch.tensor(starts), what)
    unused = [
        name
        for name, start, size in zip(stored, starts, sizes, strict=False)
        if size and not used[start : start + size].any()
    ]
    return converted, unused


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
    """As many dimensions, each but the first of size 1."""
    return (tensor.shape[0], *[1] * (len(tensor.shape) - 1)) if tensor.shape else ()


def _traced(name: str, rows: Tensor, origins: list[Stored], starts: Tensor, what: str) -> Stored:
    """What `rows` are of the tensors they came from."""
    numbers = rows.reshape(-1)
    owners = torch.searchsorted(starts, numbers, right=True) - 1
    breaks = (numbers[1:] != numbers[:-1] + 1) | (owners[1:] != owners[:-1])
    edges = [0, *(breaks.nonzero().reshape(-1) + 1).tolist(), len(numbers)]
    spans = []
    for begin, end in itertools.pairwise(edges):
        owner = int(owners[begin])
        start = int(numbers[begin] - starts[owner])
        spans.append(Span(origins[owner], start, start + end - begin))
    first = spans[0].origin
    if rows.dim() == 2 and len(rows) == 1 < rows.shape[1] and len(first.shape) == 2:
        return Transposed(first)
    tail = first.shape[1 : rows.dim()]
    dropped = first.shape[rows.dim() :]
    if any(size != 1 for size in dropped) or any(
        s.origin.shape[1:] != first.shape[1:] for s in spans
    ):
        raise InvalidCheckpoint(f"{what}: the parts of {name} differ in shape")
    shape = (len(numbers), *tail) if rows.dim() else ()
    whole = len(spans) == 1 and shape == first.shape
    return first if whole else Rearranged(tuple(spans), shape)
