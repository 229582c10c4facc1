"""Activation functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBE = _SLOPE * 0.044715
_BLOCK = 1 << 17  # elements that fit into a core's cache between passes


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415). For inference.

    torch's own float32 kernel takes up to twice as long on a CPU, nearly as long as the matrix
    product before it, so there it is x * sigmoid(2u), which equals x * (1 + tanh u) / 2.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(x * (x * x * _CUBE + _SLOPE))
    if x.numel() <= _BLOCK:
        return _by_sigmoid(x, x * x)
    out = torch.empty(x.shape)
    rows = max(1, _BLOCK // x.shape[-1])
    blocks = zip(x.flatten(0, -2).split(rows), out.flatten(0, -2).split(rows), strict=True)
    for block, into in blocks:
        _by_sigmoid(block, torch.mul(block, block, out=into))
    return out


def swiglu(x: Tensor, *, gate_last: bool = False) -> Tensor:
    """silu(gate) * value of x = (gate, value) [..., 2 * D] (Shazeer 2020, arXiv:2002.05202).

    `gate_last`: x = (value, gate).
    """
    gate, value = x.chunk(2, dim=-1)
    if gate_last:
        gate, value = value, gate
    return F.silu(gate).mul_(value)


def _by_sigmoid(x: Tensor, squared: Tensor) -> Tensor:
    """Compute the result into `squared`, and return it."""
    return squared.mul_(_CUBE).add_(_SLOPE).mul_(x).sigmoid_().mul_(x)
