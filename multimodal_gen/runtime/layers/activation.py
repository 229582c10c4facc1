"""Activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBE = _SLOPE * 0.044715


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    torch's own float32 kernel takes half as long again on a CPU, and nearly as long as the matrix
    product before it, so there it is x * sigmoid(2u), which equals x * (1 + tanh u) / 2.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    return (x * x).mul_(_CUBE).add_(_SLOPE).mul_(x).sigmoid_().mul_(x)
