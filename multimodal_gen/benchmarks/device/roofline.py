"""Measured limits of a device, and the share of them that a model needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from multimodal_gen.benchmarks.device.instruments import Call, Instruments
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.runtime.layers.products.dense import dense_product

_SIDES = {"cuda": 8192, "cpu": 2048}
"""Side of the square matrices."""
_COPIED = {"cuda": 1 << 30, "cpu": 1 << 28}
"""Bytes of the copy."""
_TINY = 64
_REPEATS = 5


@dataclass(frozen=True)
class Roofline:
    """Fastest of a few repeats on one device."""

    operations_per_s: float
    """Floating-point operations of a large product."""
    bytes_per_s: float
    """Read and written by a large copy."""

    def seconds(self, products: Sequence[tuple[float, int]]) -> float:
        """Least time of these products: each that of its arithmetic, or that of its bytes if it is
        longer."""
        return sum(
            max(operations / self.operations_per_s, moved / self.bytes_per_s)
            for operations, moved in products
        )


def measured_roofline(device: torch.device, dtype: torch.dtype, scale: Scale) -> Roofline:
    """Measure the device for products of this type."""
    instruments = Instruments(device)
    tiny = scale == "tiny"
    side = _TINY if tiny else _SIDES[device.type]
    x, weight = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.ones(_TINY if tiny else _COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        multiplying = _fastest(instruments, lambda: dense_product(x, weight))
        copying = _fastest(instruments, lambda: target.copy_(source))
    return Roofline(2 * side**3 / multiplying, 2 * source.nbytes / copying)


def _fastest(instruments: Instruments, call: Call) -> float:
    call()
    return min(instruments.seconds(call)[1] for _ in range(_REPEATS))


class _Products(TorchDispatchMode):
    """Floating-point operations, and bytes, of each product, convolution and attention."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[float, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # what it consists of, as a linear layer of a product
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        if (operations := _operations(func, args, kwargs, result)) is not None:
            leaves = tree_leaves((args, kwargs, result))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            self.found.append((operations, sum(each.nbytes for each in tensors)))
        return result


def _operations(func: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> float | None:
    """Floating-point operations of a call; None if it is no product."""
    name = func.overloadpacket.__name__
    if name == "_linear_pointwise":  # oneDNN's
        return float(2 * args[0].numel() * len(args[1]))
    if name == "_scaled_dot_product_flash_attention_for_cpu":
        q, k = args[:2]
        return float(4 * math.prod(q.shape) * k.shape[2])
    count = flop_registry.get(func.overloadpacket)
    return None if count is None else float(count(*args, **kwargs, out_val=result))


@contextmanager
def counted_products() -> Iterator[list[tuple[float, int]]]:
    """Count the products of what runs meanwhile."""
    with _Products() as products:
        yield products.found
