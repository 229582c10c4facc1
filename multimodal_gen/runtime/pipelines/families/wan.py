"""Wan text-to-video, after diffusers' WanPipeline; and TI2V, one model for texts and pictures."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.wan import EXPERTS_DEFAULTS, TEXT_IMAGE_DEFAULTS, WAN
from multimodal_gen.messages.model_info import Defaults, Task
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.vaes.pictures import fit_image
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, size_of
from multimodal_gen.runtime.pipelines.families.wan_base import WanBasePipeline
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows


class WanPipeline(WanBasePipeline):
    """A text, and a video of nothing but noise."""

    family = WAN
    widths: ClassVar = {}
    experts_defaults: ClassVar = EXPERTS_DEFAULTS

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        expands = checkpoint.options.get("expand_timesteps")
        return WanTextImagePipeline if expands else cls

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        experts = checkpoint.options.get("boundary_ratio") is not None
        return cls.experts_defaults if experts else super().default_params(checkpoint)

    def predict(self, rows: Rows) -> Tensor:
        return self.velocity(rows, rows.latents, rows.timesteps[:, None])


class WanTextImagePipeline(WanBasePipeline):
    """A picture is the first latent frame from the start on, at timestep 0."""

    family = WAN
    widths: ClassVar = {}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return TEXT_IMAGE_DEFAULTS

    @property
    def tasks(self) -> tuple[Task, ...]:
        return (*super().tasks, "image-to-video")

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        picture = state.pictures.get("image")
        noisy = torch.tensor([float(picture is None)], device=self.context.device)
        for conditioning in state.conditioning.values():
            conditioning["first_frame_noisy"] = noisy
        if picture is not None:
            _, noise = state.running()
            pixels = fit_image(picture, *size_of(state.params)).unsqueeze(2)
            keep = KeepFirstFrame(self.vae.encode(pixels))
            state.latents = keep.put_into(noise)
            state.after_step.append(keep)

    def predict(self, rows: Rows) -> Tensor:
        first = rows.timesteps * rows.conditioning["first_frame_noisy"]
        timesteps = torch.stack((first, rows.timesteps.to(first.dtype)), dim=1)
        return self.velocity(rows, rows.latents, timesteps)


class KeepFirstFrame:
    """Called after each step of one request: the first frame stays as given, without noise."""

    def __init__(self, first: Tensor) -> None:
        """`first` is one latent frame, [1, C, 1, h, w]."""
        self._first = first

    def put_into(self, latents: Tensor) -> Tensor:
        return torch.cat((self._first.to(latents.dtype), latents[:, :, 1:]), dim=2)

    def __call__(self, state: RequestState, x0: Tensor) -> None:
        _, latents = state.running()
        state.latents = self.put_into(latents)


PIPELINE = WanPipeline
