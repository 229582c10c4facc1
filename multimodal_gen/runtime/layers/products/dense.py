"""Products with weights of floating-point numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST = 1 << 20
"""Multiplications from which on oneDNN is faster: it takes about 10 µs to begin."""
_LEAST_PACKED = 1 << 17
_MOST_PACKED = 64 << 20
"""Bytes of a module's weights up to which they are packed."""
HAS_ONEDNN = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
)
"""True for CPUs on which oneDNN multiplies float32."""


class PackedWeight:
    """A weight [out, in] in oneDNN's order."""

    def __init__(self, weight: Tensor) -> None:
        self.values: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    def __deepcopy__(self, memo: object) -> None:
        """Leave it out of copies, whose weights may change."""


def dense_product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, packed: PackedWeight | None = None
) -> Tensor:
    """x Wᵀ + b: [..., in] -> [..., out], for W [out, in]. For inference.

    `packed` is W once more.

    On a CPU torch multiplies 16-bit numbers with oneDNN, but float32 with MKL, which takes twice as
    long on AMD's CPUs with AVX-512. Intel's were not measured.
    """
    if is_for_onednn(x, weight, _LEAST if packed is None else _LEAST_PACKED):
        if torch.compiler.is_compiling():
            compiled: Tensor = onednn_product(x, weight, bias)
            return compiled
        held = weight if packed is None else packed.values
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, held, bias, "none", [], "")
        return product
    return F.linear(x, weight, bias)


@torch.library.custom_op(
    "multimodal_gen::onednn_product",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product as an operation of a graph. torch's own is for weights that are constants."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@onednn_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def is_for_onednn(x: Tensor, weight: Tensor, least: int = _LEAST) -> bool:
    """True for a product that oneDNN takes less time for: in graphs, whatever its size."""
    if not (HAS_ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32):
        return False
    # A graph is not to depend on the number of tokens: the rows of small inputs are few there.
    large = torch.compiler.is_compiling() or x.numel() * len(weight) >= least
    return large and weight.is_contiguous() and not torch.is_grad_enabled()


class DenseLinear(nn.Linear):
    """A library's linear layer with `dense_product`."""

    packed: PackedWeight | None = None

    def forward(self, input: Tensor) -> Tensor:
        return dense_product(input, self.weight, self.bias, self.packed)


def use_dense_product(module: nn.Module) -> None:
    """Let the plain linear layers of a library's module multiply with `dense_product`."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = DenseLinear


def pack_weights(module: nn.Module) -> None:
    """Let layers of a small module keep their weights in oneDNN's order as well.

    A weight as the file has it is brought into that order for every product, which takes longer
    than the product itself with a hundred tokens, and a twentieth of it with a thousand.
    """
    size = sum(each.numel() * each.element_size() for each in module.parameters())
    if not HAS_ONEDNN or size > _MOST_PACKED:
        return
    layers: Iterable[Any] = module.modules()
    for layer in layers:
        weight = getattr(layer, "weight", None)
        if hasattr(layer, "packed") and isinstance(weight, Tensor) and _is_packable(weight):
            layer.packed = PackedWeight(weight)


def _is_packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.dim() == 2
