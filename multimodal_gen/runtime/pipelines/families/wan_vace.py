"""Wan VACE, after diffusers' WanVACEPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.configs.families.wan_vace import VACE_EXPERTS_DEFAULTS, WAN_VACE
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.distributed.device_copies import copied, tensor_of
from multimodal_gen.runtime.models.dits.wan.config import WanVaceConfig
from multimodal_gen.runtime.models.dits.wan.keys import wan_vace_key_map
from multimodal_gen.runtime.models.dits.wan.vace import WanVaceTransformer
from multimodal_gen.runtime.models.vaes.input_images import (
    fit_image,
    fit_video,
    on_white,
)
from multimodal_gen.runtime.pipelines.families.wan import WanPipeline
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.stages.request_state import RequestState


class WanVacePipeline(WanPipeline):
    """Latents begin with a frame for each reference image, which is not decoded."""

    family = WAN_VACE
    native = NativeTransformer(WanVaceConfig, WanVaceTransformer, wan_vace_key_map)
    experts_defaults = VACE_EXPERTS_DEFAULTS
    told: ClassVar = (*WanPipeline.told, "control", "control_scale")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        channels = 2 * self.vae.channels + self.vae.pixels_per_latent**2
        for name, module in self._experts.modules.items():
            assert isinstance(module, WanVaceTransformer)
            if (width := module.config.vace_in_channels) != channels:
                raise InvalidCheckpoint(
                    f"{name}/config.json: vace_in_channels={width} must be {channels}, for latents "
                    "of what is kept and of what changes, and the mask"
                )

    # -- the frames of reference images

    def noise(self, state: RequestState) -> Tensor:
        return self.layout.noise(self._with_references(state), state.generator)

    def latent_tokens(self, state: RequestState) -> int:
        return self.layout.tokens(self._with_references(state))

    def _with_references(self, state: RequestState) -> SamplingParams:
        """Parameters of a video that also has the frames of reference images."""
        frames = state.params.num_frames
        assert frames is not None
        added = self.vae.frame_multiple * len(images_of(state.pictures))
        return replace(state.params, num_frames=frames + added)

    def vae_latents(self, states: Sequence[RequestState], latents: Tensor) -> Tensor:
        return self._own_frames(super().vae_latents(states, latents), states[0].params)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        return super().preview(params, self._own_frames(x0, params))

    def _own_frames(self, latents: Tensor, params: SamplingParams) -> Tensor:
        return latents[:, :, -self.layout.frames(params) :]

    # -- control

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        scale = state.params.conditioning_scale
        assert scale is not None
        control = self._control(state).to(self.context.dtype)
        scales = tensor_of([float(scale)], self.context.device)
        for conditioning in state.conditioning.values():
            conditioning.update(control=control, control_scale=scales)

    def _control(self, state: RequestState) -> Tensor:
        """[1, 2 * C + P * P, T, h, w]: latents of what a video keeps, of what changes, and P x P
        pixels of the mask per latent; before them the frames of reference images."""
        video, mask = self._video(state)
        changes = (mask > 0.5).to(video.dtype)
        kept = self.vae.encode(video * (1 - changes))
        changed = self.vae.encode(video * changes) if "video" in state.pictures else kept
        per_latent = F.pixel_unshuffle(mask[0].transpose(0, 1), self.vae.pixels_per_latent)
        pixels = F.interpolate(
            per_latent.transpose(0, 1).unsqueeze(0), kept.shape[2:], mode="nearest-exact"
        )
        pixels = copied(pixels, kept.device, kept.dtype)
        frames = torch.cat((kept, changed, pixels), dim=1)
        for picture in images_of(state.pictures):
            shown = self.vae.encode(on_white(picture, *size_of(state.params)).unsqueeze(2))
            nothing = (0, 0, 0, 0, 0, 0, 0, frames.shape[1] - shown.shape[1])
            frames = torch.cat((F.pad(shown, nothing), frames), dim=2)
        return frames

    def _video(self, state: RequestState) -> tuple[Tensor, Tensor]:
        """Pixels [1, 3, F, H, W] in -1..1 and mask [1, 1, F, H, W], 1 where they change; after
        the end of a video all is grey and changes."""
        frames, size = state.params.num_frames, size_of(state.params)
        assert frames is not None
        if "video" not in state.pictures:
            return torch.zeros(1, 3, frames, *size), torch.ones(1, 1, frames, *size)
        video = fit_video(state.pictures["video"][:frames], *size)
        mask = torch.ones(1, 1, *size)
        if "mask" in state.pictures:
            mask = (fit_image(state.pictures["mask"], *size) + 1) / 2
        missing = (0, 0, 0, 0, 0, frames - video.shape[2])
        masks = mask.unsqueeze(2).expand(-1, -1, video.shape[2], -1, -1)
        return F.pad(video, missing), F.pad(masks, missing, value=1)


PIPELINE = WanVacePipeline
