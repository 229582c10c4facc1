"""One or two transformers of Wan: selects the one for each evaluation, and its scale."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.stages.request_state import RequestState

EXPERTS = ("transformer", "transformer_2")
"""For high noise, and for low noise."""


class WanExperts:
    """Assigns timesteps to the transformers of a checkpoint."""

    def __init__(
        self, modules: Mapping[str, WanTransformer], boundary_ratio: float | None, timesteps: int
    ) -> None:
        """`boundary_ratio` is the fraction of all `timesteps` at which the second one takes
        over."""
        self.modules = dict(modules)
        self.divided = boundary_ratio is not None
        # Rounded to the precision of the timesteps that it is compared with.
        boundary = 0.0 if boundary_ratio is None else boundary_ratio * timesteps
        self._boundary = float(torch.tensor(boundary))

    @property
    def config(self) -> WanConfig:
        return next(iter(self.modules.values())).config

    def name(self, state: RequestState, evaluation: int) -> str:
        """Name of the expert for a request's evaluation."""
        name = EXPERTS[self.is_low_noise(state, evaluation)]
        return name if name in self.modules else next(iter(self.modules))

    def is_low_noise(self, state: RequestState, evaluation: int) -> bool:
        solver, _ = state.running()
        return self.divided and solver.timestep(evaluation) < self._boundary


class ExpertGuidance(ClassifierFreeGuidance):
    """Each expert has a separate scale; the first one's decides whether guidance is used."""

    def __init__(self, experts: WanExperts) -> None:
        super().__init__()
        self._experts = experts

    def scale_now(self, state: RequestState) -> float:
        second = state.params.guidance_scale_2
        if second is None or not self._experts.is_low_noise(state, state.evaluation):
            return self.scale(state.params)
        return second


def boundary_ratio(checkpoint: Checkpoint) -> float | None:
    """Fraction of all timesteps at which the second expert takes over; None without one."""
    ratio = checkpoint.options.get("boundary_ratio")
    if ratio is None:
        return None
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InvalidCheckpoint(f"model_index.json: boundary_ratio={ratio!r} must be 0 to 1")
    return float(ratio)


def needed_experts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Experts with timesteps of their own; as in the reference, others may be missing."""
    ratio = boundary_ratio(checkpoint)
    needed = (ratio is None or ratio < 1, (ratio or 0) > 0)
    return tuple(name for name, is_needed in zip(EXPERTS, needed, strict=True) if is_needed)


def check_expert(kind: type[WanConfig], checkpoint: Checkpoint, name: str) -> None:
    """Raise InvalidCheckpoint for an unsupported kind of transformer."""
    config = kind.from_dict(checkpoint.config(name))
    if config.patch_size[0] != 1:
        raise InvalidCheckpoint(
            f"{name}/config.json: patch_size={list(config.patch_size)}: each latent frame must be "
            "a separate patch"
        )
