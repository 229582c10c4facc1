"""Linear layers that map to tensors of a checkpoint, and support LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.lora import LoraBank, LoraRows
from multimodal_gen.runtime.layers.take import Segment, Sources, take_parameters


class Linear(nn.Module):
    """x [..., in] -> x Wᵀ + b [..., out], plus the LoRAs of the rows."""

    bias: nn.Parameter | None
    segments: Sequence[Segment] = ()
    """Source tensors of the checkpoint for the rows of the weight."""

    def __init__(self, shape: tuple[int, ...], *, bias: bool = True) -> None:
        """`shape` is that of the weight, [out, in]."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0])) if bias else None)
        self.loras = LoraBank()

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        output = self.product(x)
        if lora is not None:
            self.loras.delta(x, lora, output)
        return output

    def product(self, x: Tensor) -> Tensor:
        """Output without LoRAs."""
        return F.linear(x, self.weight, self.bias)

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        take_parameters(self, sources, dtype, device)
        if "weight" in sources:
            self.segments = tuple(sources["weight"].segments)


class PatchLinear(Linear):
    """A convolution whose stride is its kernel size, as a product of patches [B, S, channels *
    patch].

    Its weight is the convolution's, [out, channels, *patch].
    """

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)
