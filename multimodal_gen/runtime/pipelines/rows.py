"""What the denoiser is given: a row for each request and guidance branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.request_state import Conditioning


@dataclass(frozen=True)
class Rows:
    """One evaluation's batch on this rank; R rows, a row for each (request, branch)."""

    latents: Tensor
    """[R, ...], scaled as the solvers want it."""
    timesteps: Tensor
    """[R], as the solvers give them."""
    conditioning: Conditioning
    """Each tensor [R, ...]."""
    params: Sequence[SamplingParams]
    """R of them."""
