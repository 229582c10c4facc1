"""Ring attention (Liu et al. 2023, arXiv:2310.01889): keys and values go around, queries stay.

Each rank holds a block of the sequence. While it attends to the block that it has, the next one is
on its way. In one attention a rank sends 2 * (R - 1) / R * B * S * H * D elements, where H are the
heads that it computes: its own block of keys and values, and all but the last that it receives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import Transfer, start_pass
from multimodal_gen.runtime.distributed.local_attention import Attention, PartialOutput, Prefix
from multimodal_gen.runtime.distributed.mesh import Axis
from multimodal_gen.runtime.distributed.token_order import TokenOrder


class RingAttention:
    """Attention of a block's queries to the keys of all blocks.

    Blocks are merged in the order in which they come: this rank's, the previous rank's, and so on.
    """

    def __init__(self, attention: Attention, axis: Axis) -> None:
        self._attention = attention
        self._axis = axis

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        order: TokenOrder,
        lengths: Tensor | None,
        prefix: Prefix | None,
    ) -> Tensor:
        """Result for q, k, v [B, S_block, H, D] of this rank's block, like q."""
        sizes = order.sizes
        valid = [None] * len(sizes) if lengths is None else order.valid(lengths)
        q = q.to(v.dtype)
        block = _joined(k, v, order if lengths is not None else None)
        found: PartialOutput | None = None
        if prefix is not None and q.numel():
            found = merged(None, self._attention.partial(q, *prefix))
        for turn in range(self._axis.size):
            source = (self._axis.rank - turn) % self._axis.size
            coming = self._fetch(block, sizes[source - 1]) if turn < self._axis.size - 1 else None
            if q.numel() and block.numel():
                keys, values = block.transpose(1, 2)
                found = merged(found, self._attention.partial(q, keys, values, valid[source]))
            if coming is not None:
                block = coming.wait()
        return q if found is None else found.out.to(q.dtype)

    def _fetch(self, block: Tensor, tokens: int) -> Transfer:
        """Pass `block` on, and receive the previous rank's, of so many tokens."""
        received = block.new_empty(2, tokens, *block.shape[2:])
        assert self._axis.group is not None
        return start_pass(block, received, self._axis.group)


def _joined(k: Tensor, v: Tensor, order: TokenOrder | None) -> Tensor:
    """Keys and values [B, S, H, D] in one buffer [2, S, B, H, D] of the values' dtype.

    By stream if an order is given, so that valid keys lead.
    """
    batch, tokens, *rest = v.shape
    buffer = v.new_empty(2, tokens, batch, *rest)
    for half, x in zip(buffer.transpose(1, 2), (k, v), strict=True):
        pieces: Sequence[Tensor] = [x] if order is None else [*order.by_stream(x)]
        places = half.split_with_sizes([piece.shape[1] for piece in pieces], dim=1)
        for place, piece in zip(places, pieces, strict=True):
            place.copy_(piece)
    return buffer


def merged(found: PartialOutput | None, part: PartialOutput) -> PartialOutput:
    """Attention to the keys of both, in float32.

    The weight of each is its share of the sum of exponentials. Nothing overflows, since only
    differences to the larger log-sum-exp are exponentiated; where both are minus infinity, the
    output stays 0.
    """
    out = part.out.float()
    if found is None:
        return PartialOutput(out, part.log_sum_exp)
    total = torch.logaddexp(found.log_sum_exp, part.log_sum_exp)
    share = (part.log_sum_exp - total).exp_().nan_to_num_(0)
    return PartialOutput(found.out.lerp_(out, share.unsqueeze(-1)), total)
