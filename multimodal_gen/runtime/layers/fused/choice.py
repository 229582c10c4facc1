"""Selection of the fused kernels: used where they work, and torch's operations elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
logger = logging.getLogger(__name__)


class Kernels(Protocol):
    """See `kernels.py`."""

    def norm(
        self, x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, *, centred: bool = True
    ) -> Tensor: ...

    def add_norm(
        self,
        x: Tensor,
        gate: Tensor,
        update: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        eps: float,
        *,
        centred: bool = True,
    ) -> tuple[Tensor, Tensor]: ...

    def turned(
        self,
        qk: Tensor,
        weights: Sequence[Tensor],
        boundary: int,
        eps: float,
        table: Tensor | None,
        *,
        across: bool = False,
    ) -> Tensor: ...


def kernels_for(x: Tensor) -> Kernels | None:
    """Kernels for tensors like x. None: use torch's operations, which a compiler fuses itself."""
    if x.device.type != "cuda" or x.dtype not in _TYPES or torch.compiler.is_compiling():
        return None
    return _kernels_on(x.device)


@cache
def _kernels_on(device: torch.device) -> Kernels | None:
    """Kernels that give what torch does on this device."""
    try:
        kernels: Kernels = import_module("multimodal_gen.runtime.layers.fused.kernels")
        check(kernels, device)
    except Exception as error:  # no Triton, no C compiler, or a device that it does not know
        logger.warning("%s computes without fused kernels: %s", device, error)
        return None
    return kernels


def check(kernels: Kernels, device: torch.device) -> None:
    """Raise ArithmeticError unless the kernels agree with torch on small tensors."""
    with torch.inference_mode():
        for found, exact in _examples(kernels, device):
            if not torch.allclose(found.double(), exact, rtol=0.02, atol=0.02):
                raise ArithmeticError("a fused kernel differs from torch's operations")


def _examples(kernels: Kernels, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Results of the kernels, and the same in float64."""
    x, update = (_waves((2, 3, 48), start, device) for start in (0, 1))
    gate, scale, shift = (_waves((2, 1, 48), start, device) for start in (2, 3, 4))
    total, normed = kernels.add_norm(x, gate, update, scale, shift, 1e-6)
    added = x.double() + gate.double() * update.double()
    expected = F.layer_norm(total.double(), (48,), eps=1e-6) * scale.double() + shift.double()
    qk, weight = _waves((2, 3, 2, 5, 16), 5, device), _waves((32,), 6, device)
    angles = _waves((3, 8), 7, device).double()
    table = torch.polar(torch.ones_like(angles), angles)
    turned = kernels.turned(qk, [weight], 3, 1e-6, torch.view_as_real(table).float())
    heads = F.rms_norm(qk.double(), (16,), None, 1e-6) * weight.double().view(2, 1, 16)
    rotated = torch.view_as_complex(heads.unflatten(-1, (8, 2))) * table.view(3, 1, 1, 8)
    return [
        (total, added),
        (normed, expected),
        (turned, torch.view_as_real(rotated).flatten(-2)),
    ]


def _waves(shape: Sequence[int], start: int, device: torch.device) -> Tensor:
    """Numbers between -1 and 1."""
    count = torch.Size(shape).numel()
    steps = torch.arange(count, device=device, dtype=torch.float32) * 0.7 + start
    return steps.sin().view(*shape).bfloat16()
