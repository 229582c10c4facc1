"""Products with weights of floating-point numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST = 1 << 20
"""Multiplications from which on oneDNN is faster: it takes about 10 µs to begin."""
HAS_ONEDNN = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
)
"""True for CPUs on which oneDNN multiplies float32."""


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: [..., in] -> [..., out], for W [out, in]. For inference.

    On a CPU torch multiplies 16-bit numbers with oneDNN, but float32 with MKL, which takes twice as
    long on CPUs with AVX-512 that are not Intel's, and no less on those that are.
    """
    if _is_for_onednn(x, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return F.linear(x, weight, bias)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    if not (HAS_ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32):
        return False
    # A graph is not to depend on the number of tokens: the rows of small inputs are few there.
    large = torch.compiler.is_compiling() or x.numel() * len(weight) >= _LEAST
    return large and weight.is_contiguous() and not torch.is_grad_enabled()


class DenseLinear(nn.Linear):
    """A library's linear layer with `dense_product`."""

    def forward(self, x: Tensor) -> Tensor:
        return dense_product(x, self.weight, self.bias)


def use_dense_product(module: nn.Module) -> None:
    """Let the plain linear layers of a library's module multiply with `dense_product`."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = DenseLinear
