"""Linear layers that know which tensors of a checkpoint they are made of, and take LoRAs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.lora import LoraBank, LoraRows
from multimodal_gen.runtime.layers.take import Segment, Sources, take_parameters


class Linear(nn.Module):
    """x [..., in] -> x Wᵀ + b [..., out], and what the LoRAs of the rows add to that."""

    bias: nn.Parameter | None
    segments: Sequence[Segment] = ()
    """Which rows of the weight came from which tensor of the checkpoint."""

    def __init__(self, shape: tuple[int, ...], *, bias: bool = True) -> None:
        """`shape` is the weight's, [out, in]."""
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
        """Without LoRAs."""
        return F.linear(x, self.weight, self.bias)

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        take_parameters(self, sources, dtype, device)
        if "weight" in sources:
            self.segments = tuple(sources["weight"].segments)


class PatchLinear(Linear):
    """A convolution whose stride is its kernel, as a product of patches [B, S, channels * patch].

    Its weight is the convolution's, [out, channels, *patch].
    """

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)
