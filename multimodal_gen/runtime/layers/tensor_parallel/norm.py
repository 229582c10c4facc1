"""RMS norms over heads that ranks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.tensor import TensorParallel
from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.lora_terms import Term
from multimodal_gen.runtime.layers.norm import QKNorm, RMSNorm
from multimodal_gen.runtime.layers.take import Sources
from multimodal_gen.runtime.layers.tensor_parallel.rows import rows_of


class OwnChannels(Elementwise):
    """Takes this rank's channels of its weight. Until it is loaded, it is whole."""

    own: Sequence[range]

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().take(rows_of(self, sources, self.own), dtype, device)
        self.segments = tuple(sources["weight"].segments)

    def part_of(self, term: Term) -> Term | None:
        return term.outputs(self.own)


class SharedRMSNorm(OwnChannels, RMSNorm):
    """Channels `own` of tokens [B, S, sum(own)]."""

    def __init__(self, width: int, eps: float, own: Sequence[range], group: TensorParallel) -> None:
        super().__init__(width, eps)
        self.width = width
        self.own = own
        self._group = group

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        normalised = _normalised(x, self.width, self.eps, self._group)
        return normalised.mul_(self.weight_of(lora)).to(x.dtype)


class SharedQKNorm(OwnChannels, QKNorm):
    """The same for queries and keys; `own` are channels of both, one after the other."""

    def __init__(self, width: int, own: Sequence[range], group: TensorParallel) -> None:
        super().__init__(width)
        self.width = width
        self.own = own
        self._group = group

    def normalised(self, qk: Tensor, eps: float) -> Tensor:
        return _normalised(qk, self.width, eps, self._group)


def _normalised(x: Tensor, width: int, eps: float, group: TensorParallel) -> Tensor:
    """New float32 tensor like x, a share of `width` channels, whose mean square over all is 1."""
    exact = x.float()
    squares = group.sum(exact.square().sum(-1, keepdim=True))
    return exact * (squares / width + eps).rsqrt()
