"""A request while it runs: everything that changes from step to step, owned by the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.layers.lora import LoraUse
from multimodal_gen.runtime.models.schedulers.solver import Solver

Conditioning = dict[str, Tensor]
"""What one branch tells the denoiser; each tensor has a leading dimension of 1."""


@dataclass(eq=False)
class RequestState:
    """The tensors of one request. Dropping the object frees them."""

    req: Req
    generator: torch.Generator
    """On the CPU, seeded by the request: the same noise on every device and rank."""
    pictures: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    """What came with the request: `image` [H, W, 3], `mask` [H, W], uint8 and read-only."""
    loras: tuple[LoraUse, ...] = ()
    """What its rows add to the modules of the pipeline."""
    conditioning: dict[str, Conditioning] = field(default_factory=dict)
    """By branch, in the order of the rows that the request takes in a batch."""
    latents: Tensor | None = None
    """[1, ...] as the denoiser takes them."""
    solver: Solver | None = None
    evaluation: int = 0
    """Entries of `solver.timesteps` done."""
    stepped: tuple[Tensor, Tensor] | None = None
    """What the solver made of this evaluation, until all requests of the batch have theirs."""
    after_step: list[Callable[[RequestState, Tensor], None]] = field(default_factory=list)
    """Called after each evaluation with the state and the estimate of x0 [1, ...]."""
    preview: Tensor | None = None
    """[H, W, 3] uint8: the newest preview not yet sent."""
    chunks: list[Tensor] = field(default_factory=list)
    """Decoded so far, each [F, H, W, 3] uint8."""
    carry: Any = None
    """What the VAE needs of the chunk decoded last to decode the next."""

    @property
    def params(self) -> SamplingParams:
        return self.req.params

    def running(self) -> tuple[Solver, Tensor]:
        """Solver and latents of a request that has been prepared."""
        assert self.solver is not None
        assert self.latents is not None
        return self.solver, self.latents

    @classmethod
    def of(cls, req: Req, pictures: Sequence[np.ndarray[Any, Any]] = ()) -> RequestState:
        """`pictures` are those that the request announces, in that order."""
        assert req.params.seed is not None
        return cls(
            req=req,
            generator=torch.Generator("cpu").manual_seed(req.params.seed),
            pictures=dict(zip(req.pictures, pictures, strict=True)),
        )


def shapes_of(state: RequestState) -> str:
    """Size, and the shapes of latents and conditioning, such as `64x64 4x8x8 text[77x768]`."""
    _, latents = state.running()
    branch = next(iter(state.conditioning.values()))
    told = (f"{name}[{_sizes(tensor)}]" for name, tensor in branch.items())
    return " ".join((f"{state.params.width}x{state.params.height}", _sizes(latents), *told))


def _sizes(tensor: Tensor) -> str:
    """Of a row [1, ...], such as 24x64."""
    return "x".join(map(str, tensor.shape[1:]))
