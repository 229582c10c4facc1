"""Layers that transformers are built of on this rank.

A transformer declares which of its layers are columns and which are rows. Each part decides how its
layer is stored, computed and shared between ranks: one rank in full precision gets plain layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from multimodal_gen.runtime.distributed.local_attention import Prefix
from multimodal_gen.runtime.distributed.sequence import Attending, SequenceParallel
from multimodal_gen.runtime.layers.linear import Linear, PatchLinear
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.norm import QKNorm, RMSNorm

Units = int | Sequence[int]
"""Features that stay together, for all widths of a layer or for each."""


def units_of(widths: Sequence[int], unit: Units) -> Sequence[int]:
    """Unit of each width, which is a multiple of it."""
    units = [unit] * len(widths) if isinstance(unit, int) else unit
    assert not any(width % each for width, each in zip(widths, units, strict=True)), (widths, unit)
    return units


class Parts:
    """Creates the layers of one transformer; `sequence` shares its tokens between ranks."""

    def __init__(self, sequence: SequenceParallel) -> None:
        self.sequence = sequence

    # -- layers

    def linear(self, inputs: int, outputs: int, *, bias: bool = True) -> Linear:
        """A layer that is complete on each rank."""
        return Linear((outputs, inputs), bias=bias)

    def column(
        self, inputs: int, outputs: Sequence[int], *, unit: Units = 1, bias: bool = True
    ) -> Linear:
        """Several layers with one input, as one product: [..., inputs] -> [..., sum(outputs)].

        Each of `outputs` can be split between ranks in units of `unit` features: whole heads. 1
        stands for features that need not stay together.
        """
        units_of(outputs, unit)
        return Linear((sum(outputs), inputs), bias=bias)

    def row(
        self, inputs: Sequence[int], outputs: int, *, unit: Units = 1, bias: bool = True
    ) -> Linear:
        """A layer whose inputs are the outputs of columns of these widths: its products add up."""
        units_of(inputs, unit)
        return Linear((outputs, sum(inputs)), bias=bias)

    def patches(self, channels: int, outputs: int, patch: Sequence[int]) -> PatchLinear:
        """Patch embedding, complete on each rank."""
        return PatchLinear((outputs, channels, *patch))

    def norm(self, width: int, eps: float, *, unit: int) -> RMSNorm:
        """An RMS norm over all outputs of a column, split in units of `unit` features."""
        assert not width % unit, (width, unit)
        return RMSNorm(width, eps)

    def qk_norm(self, width: int, *, unit: int | None = None) -> QKNorm:
        """An RMS norm of queries and keys, over one head, or over all if their `unit` is given."""
        assert not width % (unit or 1), (width, unit)
        return QKNorm(width)

    def heads(self, count: int) -> int:
        """Number of the `count` heads that this rank's columns compute."""
        return count

    def head_range(self, count: int) -> range:
        """Heads, of `count`, that this rank's columns compute."""
        return range(count)

    def whole_heads(self, x: Tensor, count: int, width: int) -> Tensor:
        """All `count` heads [..., count * width], of which this rank's columns compute `x`."""
        return x

    def features(self, count: int) -> int:
        """Number of `count` features of no unit that this rank's columns compute."""
        return count

    def in_two(
        self, column: Linear, x: Tensor, first: int, lora: LoraRows | None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """The `first` outputs of a column, and a function that returns the others.

        Where ranks exchange heads, it multiplies only then: what was made of the first outputs is
        on its way meanwhile. LoRAs, and weights that keep a form, need the product as a whole.
        """
        if self.sequence.exchanges_heads and lora is None and column.weight is not None:
            rest = len(column.weight)
            return column.rows(x, 0, first), lambda: column.rows(x, first, rest)
        output = column(x, lora)
        return output[..., :first], lambda: output[..., first:]

    # -- attention

    def attend(
        self,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Attending:
        """See `SequenceParallel.attend`."""
        return self.sequence.attend(v, streams, lengths, prefix)

    def cross_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `SequenceParallel.cross_attention`."""
        return self.sequence.cross_attention(q, k, v)

    def attention_to_shares(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `SequenceParallel.attention_to_shares`."""
        return self.sequence.attention_to_shares(q, k, v)
