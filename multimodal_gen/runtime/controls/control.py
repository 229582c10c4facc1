"""Interface of a kind of control, and of a control that is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_gen.checkpoints.adapter_folder import AdapterFile
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.models.vaes.input_images import fit_image
from multimodal_gen.runtime.models.vaes.vae import VAE

Added = dict[str, Tensor | list[Tensor] | list[Tensor | None]]
"""Tensors [r, ...] that a control adds to its rows, as arguments of the denoiser by name: residuals
times scale. A list may have a tensor several times, and None where nothing is added."""
Told = dict[str, Tensor]
"""What a control knows of a picture: tensors [1, ...] of one request, or [r, ...] of rows."""


@dataclass(frozen=True)
class ControlTarget:
    """The model that controls are for."""

    family: str
    """For messages."""
    class_name: str
    """The library's class of the denoiser."""
    config: Mapping[str, Any]
    """The denoiser's."""
    modules: Mapping[str, nn.Module]
    """Components with weights, by name."""
    context: RankContext


@dataclass(frozen=True)
class ControlDescription:
    """The files of a control, without weights."""

    file: AdapterFile
    config: Mapping[str, Any]
    """Content of config.json; empty without."""
    header: Header

    @property
    def class_name(self) -> str:
        """The library's class, as its config states it; empty without."""
        return str(self.config.get("_class_name", ""))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor in the file; empty if there is none."""
        found = self.header.tensors.get(name)
        return () if found is None else found.shape


@dataclass(frozen=True)
class ControlPicture:
    """The picture of one entry of `control`, and the output that it steers."""

    pixels: np.ndarray[Any, Any]
    """uint8 [H, W, 3]."""
    height: int
    width: int
    """Of the output, in pixels."""
    branches: tuple[str, ...]
    """Guidance branches of the request: positive, negative."""
    mode: str | None = None
    """What it shows, one of the control's modes."""
    conditioning: Mapping[str, Told] = field(default_factory=dict)
    """The request's, by branch."""
    guidance_scale: float | None = None
    vae: VAE | None = None
    generator: torch.Generator | None = None
    """Of the request, whose noise is drawn afterwards."""

    def latents(self, *, drawn: bool) -> Tensor:
        """Encode it at the output's size: [1, C, h, w], the mode of the posterior or, as some
        pipelines have it, drawn from it."""
        assert self.vae is not None
        pixels = fit_image(self.pixels, self.height, self.width)
        return self.vae.encode(pixels, self.generator if drawn else None)


@dataclass(frozen=True)
class ControlCall:
    """One evaluation of the denoiser, cut to the r rows of one control."""

    tensors: Mapping[str, Any]
    """The denoiser's own arguments, tensors [r, ...]."""
    static: Mapping[str, Any]
    told: Told
    scale: Tensor
    """[r] float32."""
    rows: Tensor | None
    """[r] int64: their places among all rows; None: they are all, in order."""
    total: int
    """Number of all rows."""
    lora: LoraRows | None = None
    """LoRAs of the r rows."""


class Control(ABC):
    """A control on the device."""

    warnings: tuple[str, ...] = ()
    """For the results of requests that use it."""
    modes: tuple[str, ...] = ()
    """What its pictures may show, if a request must say."""

    @property
    @abstractmethod
    def tensors(self) -> Iterable[Tensor]:
        """Its tensors on the device."""

    def misuse(self, mode: str | None, height: int, width: int) -> str | None:
        """Tell what must be different about a request of this mode and size, in pixels."""
        if mode in self.modes or (mode is None and not self.modes):
            return None
        return f"mode must be {' or '.join(self.modes) or 'left out'} for this control"

    @abstractmethod
    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        """Return what it makes of a picture for all evaluations, for each branch that it steers."""

    def joined(self, told: Sequence[Told]) -> Told:
        """Join what it made for several rows, [1, ...] each, to tensors [r, ...]."""
        return {name: torch.cat([each[name] for each in told]) for name in told[0]}

    @abstractmethod
    def applied(self, call: ControlCall) -> AbstractContextManager[Added]:
        """Apply to one evaluation of the denoiser, which runs inside the context."""


class ResidualControl(Control):
    """A network whose outputs are added inside the denoiser."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    @property
    def tensors(self) -> Iterable[Tensor]:
        yield from self.module.parameters()
        yield from self.module.buffers()

    def applied(self, call: ControlCall) -> AbstractContextManager[Added]:
        return nullcontext(self.residuals(call))

    @abstractmethod
    def residuals(self, call: ControlCall) -> Added:
        """Run the network on its rows."""


class ControlKind(ABC):
    """A kind of controls. Each module of `controls/kinds` has one as `KIND`."""

    @abstractmethod
    def reads(self, described: ControlDescription) -> bool:
        """True if the file is of this kind, by its config or the names of its tensors."""

    @abstractmethod
    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        """Tell what the file is for, if that is another model; called before a weight is read."""

    @abstractmethod
    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        """Load it to the device. Raises InvalidCheckpoint, InvalidRequest."""


def scaled(residuals: Iterable[Tensor], scale: Tensor) -> list[Tensor]:
    """Multiply residuals [r, ...] by their rows' scales [r]."""
    return [
        residual * scale.to(residual.dtype).view(-1, *[1] * (residual.dim() - 1))
        for residual in residuals
    ]
