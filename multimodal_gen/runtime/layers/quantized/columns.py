"""Columns of weights, taken apart where blocks end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from multimodal_gen.runtime.layers.quantized.storage import Storage


def cut_columns(
    storages: Sequence[Storage], own: Sequence[range]
) -> tuple[list[Storage], list[range]]:
    """Columns `own` of a weight's storages, and all that share a block with them.

    Also returns which those are. At least one block is kept, so that all ranks compute the same.
    """
    block = math.lcm(*(each.block for each in storages))
    kept = _in_blocks(own, block, storages[0].columns)
    return [each.cut(kept) for each in storages], kept


def _in_blocks(own: Sequence[range], block: int, columns: int) -> list[range]:
    kept: list[range] = []
    for each in own:
        first, last = each.start // block * block, min(-(-each.stop // block) * block, columns)
        if each and kept and first <= kept[-1].stop:
            kept[-1] = range(kept[-1].start, max(last, kept[-1].stop))
        elif each:
            kept.append(range(first, last))
    return kept or [range(min(block, columns))]
