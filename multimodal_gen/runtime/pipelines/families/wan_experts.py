"""The one or two transformers of Wan: which of them does an evaluation, and at which scale."""

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
"""Of high noise, and of low noise."""


class WanExperts:
    """Divides the timesteps among the transformers that a checkpoint has."""

    def __init__(
        self, modules: Mapping[str, WanTransformer], boundary_ratio: float | None, timesteps: int
    ) -> None:
        """`boundary_ratio` is the share of all `timesteps` at which the second takes over."""
        self.modules = dict(modules)
        self.divided = boundary_ratio is not None
        # At the precision of the timesteps that it is compared with.
        boundary = 0.0 if boundary_ratio is None else boundary_ratio * timesteps
        self._boundary = float(torch.tensor(boundary))

    @property
    def config(self) -> WanConfig:
        return next(iter(self.modules.values())).config

    def name(self, state: RequestState, evaluation: int) -> str:
        """The expert that does a request's evaluation."""
        name = EXPERTS[self.is_low_noise(state, evaluation)]
        return name if name in self.modules else next(iter(self.modules))

    def is_low_noise(self, state: RequestState, evaluation: int) -> bool:
        solver, _ = state.running()
        return self.divided and solver.timestep(evaluation) < self._boundary


class ExpertGuidance(ClassifierFreeGuidance):
    """Each expert has a scale of its own; whether there is any guidance is up to the first."""

    def __init__(self, experts: WanExperts) -> None:
        super().__init__()
        self._experts = experts

    def scale_now(self, state: RequestState) -> float:
        second = state.params.guidance_scale_2
        if second is None or not self._experts.is_low_noise(state, state.evaluation):
            return self.scale(state.params)
        return second


def boundary_ratio(checkpoint: Checkpoint) -> float | None:
    """Where, of all timesteps, the second expert takes over; None: there is none."""
    ratio = checkpoint.options.get("boundary_ratio")
    if ratio is None:
        return None
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InvalidCheckpoint(f"model_index.json: boundary_ratio={ratio!r} must be 0 to 1")
    return float(ratio)


def needed_experts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """As in the reference, an expert without a share of the timesteps may be left out."""
    ratio = boundary_ratio(checkpoint)
    needed = (ratio is None or ratio < 1, (ratio or 0) > 0)
    return tuple(name for name, is_needed in zip(EXPERTS, needed, strict=True) if is_needed)


def check_expert(checkpoint: Checkpoint, name: str) -> None:
    """Raises InvalidCheckpoint for a transformer of a kind that isn't known here."""
    config = WanConfig.from_dict(checkpoint.config(name))
    if config.patch_size[0] != 1:
        raise InvalidCheckpoint(
            f"{name}/config.json: patch_size={list(config.patch_size)}: each latent frame must be "
            "a patch of its own"
        )
    if config.pos_embed_seq_len is not None:
        raise InvalidCheckpoint(
            f"{name}/config.json: pos_embed_seq_len is set: a model for a first and a last frame, "
            "and requests have one picture"
        )
