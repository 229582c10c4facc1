"""Bytes that one rank sends in an evaluation, and the exchanges in which it does.

With s = ring * ulysses ranks to a sequence and t to a layer, n attentions, R rows on a rank, S
tokens, D features of width b bytes, m sums, and p norms over all heads, in float32:

    ulysses   4 n R S D b / (s t) * (ulysses - 1) / ulysses    queries, keys, values, and the result
    ring      2 n R S D b / (s t) * (ring - 1)                 keys and values, passed on
    tensor    2 R S (m D b + 4 p) / s * (t - 1) / t            reduce and gather, as in a ring
    sequence  R * (output + modulation) b / s * (s - 1)        the prediction's tokens
    cfg       R * output b * (cfg - 1)                         the rows' predictions

It receives as many. Shares are taken to be equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.scheduling.parallel.shape import Evaluation

AxisName = Literal["cfg", "sequence", "ring", "ulysses", "tensor"]
_SQUARE = 4
"""Bytes of the sum of a token's squares."""


@dataclass(frozen=True)
class Traffic:
    """Traffic that one rank sends along one axis."""

    sent: float = 0.0
    """Bytes; it receives as many."""
    exchanges: int = 0
    """Collectives, or steps of a ring."""


def traffic(work: Evaluation, on: ParallelConfig) -> dict[AxisName, Traffic]:
    """Traffic of an evaluation on each axis that has several ranks."""
    shape, rows = work.shape, math.ceil(work.rows / on.cfg)
    shared = on.ring * on.ulysses
    whole = float(rows * work.tokens * shape.width * work.itemsize)
    heads, prediction = whole / (shared * on.tensor), float(rows * work.output * work.itemsize)
    modulation = float(rows * shape.modulation * work.itemsize)
    pieces, passes = (on.ulysses - 1) / on.ulysses, on.ring - 1
    sums = whole / shared * (on.tensor - 1) / on.tensor
    squares = sums / (shape.width * work.itemsize) * _SQUARE
    found: dict[AxisName, Traffic] = {
        "cfg": Traffic(prediction * (on.cfg - 1), 1),
        "sequence": Traffic(
            (prediction + modulation) / shared * (shared - 1), 2 if modulation else 1
        ),
        "ring": Traffic(2 * shape.attentions * heads * passes, shape.attentions * passes),
        "ulysses": Traffic(4 * shape.attentions * heads * pieces, 3 * shape.attentions),
        "tensor": Traffic(2 * (shape.sums * sums + shape.norms * squares), shape.reductions),
    }
    sizes = {"sequence": shared, "cfg": on.cfg, "ring": on.ring}
    sizes |= {"ulysses": on.ulysses, "tensor": on.tensor}
    return {axis: each for axis, each in found.items() if sizes[axis] > 1}
