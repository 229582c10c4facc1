"""Linear layers that map to tensors of a checkpoint, and support LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.lora import LoraBank, LoraRows, add_loras, held, numbered
from multimodal_gen.runtime.layers.lora_terms import Term
from multimodal_gen.runtime.layers.products.dense import PackedWeight, dense_product, is_for_onednn
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.layers.take import Segment, Sources, take_parameters


class Linear(nn.Module):
    """x [..., in] -> x Wᵀ + b [..., out], plus the LoRAs of the rows."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    segments: Sequence[Segment] = ()
    """Source tensors of the checkpoint for the rows of the weight."""
    channel_dim = -1
    packed: PackedWeight | None = None
    """The weight in the order of the device's kernel, if that is kept as well."""

    def __init__(self, shape: tuple[int, ...], *, bias: bool = True) -> None:
        """`shape` is that of the weight, [out, in]."""
        super().__init__()
        self.whole = torch.Size(shape)
        """Shape of the weight in a checkpoint, of which a rank may hold a part."""
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0])) if bias else None)
        self.kept: KeptWeight | None = None
        """The weight if it keeps a form of its own; then `weight` is None."""
        self.loras = LoraBank()
        self.number = numbered(self)

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight, [out, in]."""
        return self._whole.shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of inputs and outputs."""
        return self._whole.dtype

    @property
    def device(self) -> torch.device:
        return self._whole.device

    @property
    def _whole(self) -> Tensor | KeptWeight:
        if self.kept is not None:
            return self.kept
        assert self.weight is not None
        return self.weight

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        output = self.product(x)
        if lora is not None and torch.compiler.is_compiling():
            add_loras(self.number, x, lora.number, output)
        elif lora is not None:
            self.loras.delta(self, x, lora, output)
        return output

    def product(self, x: Tensor) -> Tensor:
        """Output without LoRAs."""
        if self.kept is not None:
            return self.kept.product(x, self.bias)
        assert self.weight is not None
        if torch.compiler.is_compiling() and is_for_onednn(x, self.weight):
            product: Tensor = layer_product(self.number, x, self.weight, self.bias)
            return product
        return dense_product(x, self.weight, self.bias, self.packed)

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs of some rows of a plain weight, without LoRAs."""
        assert self.weight is not None
        bias = None if self.bias is None else self.bias[start:stop]
        return dense_product(x, self.weight[start:stop], bias)

    # -- as LoRAs see it

    def multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        return dense_product(x, weight.flatten(1))

    def mix(self, weight: Tensor, hidden: Tensor) -> Tensor:
        return dense_product(hidden, weight.flatten(1))

    def base(self, x: Tensor, rows: range) -> Tensor:
        if self.kept is not None:
            return self.kept.product(x, None)[..., rows.start : rows.stop]
        return self.multiply(self.numbers(rows), x)

    def numbers(self, rows: range) -> Tensor:
        if self.kept is not None:
            return self.kept.rows(torch.arange(rows.start, rows.stop, device=self.kept.device))
        assert self.weight is not None
        return self.weight[rows.start : rows.stop]

    def total(self, sums: Tensor) -> Tensor:
        return sums

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        if "weight" in sources:
            self.segments = tuple(sources["weight"].segments)
            if storages := sources["weight"].storages(self.shape, dtype, device):
                self.kept = KeptWeight(storages, dtype)
                self.weight = None
                sources = {name: each for name, each in sources.items() if name != "weight"}
        take_parameters(self, sources, dtype, device)

    def part_of(self, term: Term) -> Term | None:
        """This rank's part of a LoRA's term for the whole layer, if it has one."""
        return term


@torch.library.custom_op(
    "multimodal_gen::layer_product",
    mutates_args=(),
    schema="(Tensor layer, Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
def layer_product(layer: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`dense_product` of a layer as one operation of a compiled graph, which does not depend on
    the order in which the layer keeps its weight; `layer` is a number."""
    return dense_product(x, weight, bias, held(layer).packed)


@layer_product.register_fake
def _(layer: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


class PatchLinear(Linear):
    """A convolution whose stride is its kernel size, as a product of patches [B, S, channels *
    patch].

    Its weight is the convolution's, [out, channels, *patch].
    """

    def product(self, x: Tensor) -> Tensor:
        assert self.weight is not None  # A kernel keeps no form of its own.
        return dense_product(x, self.weight.flatten(1), self.bias)
