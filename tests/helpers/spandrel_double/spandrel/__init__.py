"""Stands for spandrel where it is not installed, as its torchvision must be of torch's own build:
the part of its interface that the engine uses, with ESRGAN alone."""

from __future__ import annotations

import enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class UnsupportedModelError(Exception):
    pass


class ModelTiling(enum.Enum):
    SUPPORTED = 1


class _Network(torch.nn.Module):
    """RRDBNet of any width, by the names of its tensors: https://arxiv.org/abs/1809.00219."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = {name: name.replace(".", "-") for name in tensors}
        for name, tensor in tensors.items():
            self.register_parameter(self._names[name], torch.nn.Parameter(tensor.clone()))
        self.blocks = len({name.split(".")[1] for name in tensors if name.startswith("body.")})

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (
            self.get_parameter(self._names[f"{name}.{kind}"]) for kind in ("weight", "bias")
        )
        return F.conv2d(x, weight, bias, padding=1)

    def _dense(self, name: str, x: Tensor) -> Tensor:
        seen = x
        for number in range(1, 5):
            grown = F.leaky_relu(self._conv(f"{name}.conv{number}", seen), 0.2)
            seen = torch.cat((seen, grown), 1)
        return self._conv(f"{name}.conv5", seen) * 0.2 + x

    def forward(self, x: Tensor) -> Tensor:
        x = self._conv("conv_first", x)
        y = x
        for block in range(self.blocks):
            z = y
            for dense in (1, 2, 3):
                z = self._dense(f"body.{block}.rdb{dense}", z)
            y = z * 0.2 + y
        x = x + self._conv("conv_body", y)
        for name in ("conv_up1", "conv_up2"):
            x = F.leaky_relu(self._conv(name, F.interpolate(x, scale_factor=2)), 0.2)
        return self._conv("conv_last", F.leaky_relu(self._conv("conv_hr", x), 0.2))


class _Descriptor:
    purpose, scale, input_channels, output_channels = "SR", 4, 3, 3
    supports_half = supports_bfloat16 = True
    tiling = ModelTiling.SUPPORTED

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.model = _Network(tensors)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def to(self, **kinds: Any) -> _Descriptor:
        self.model.to(**kinds)
        return self

    def eval(self) -> _Descriptor:
        self.model.eval()
        return self

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        enlarged: Tensor = self.model(image)
        return enlarged.clamp_(0, 1)


class _Registry:
    def load(self, tensors: dict[str, Tensor]) -> _Descriptor:
        if "conv_first.weight" not in tensors or "conv_last.weight" not in tensors:
            raise UnsupportedModelError
        return _Descriptor(tensors)


MAIN_REGISTRY = _Registry()
