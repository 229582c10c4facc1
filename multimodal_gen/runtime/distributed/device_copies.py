"""Copies from host to device for which the host does not wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def copied(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a small tensor of the CPU to the device, behind the work that is queued there.

    From pageable memory a GPU's driver would copy only when that work is done, and let the host
    wait. The allocator of pinned memory reuses a block once its copy is made.
    """
    tensor = tensor.to(dtype=dtype)  # a copy that casts as well would not be from pinned memory
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def tensor_of(
    values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Create a tensor of Python numbers on the device, without waiting for it."""
    return copied(torch.tensor(values, dtype=dtype), device)
