"""Wan image-to-video, after diffusers' WanImageToVideoPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.configs.families.wan_image_to_video import (
    IMAGE_EXPERTS_DEFAULTS,
    WAN_IMAGE_TO_VIDEO,
)
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.vaes.pictures import Picture, fit_image
from multimodal_gen.runtime.pipelines.composed_pipeline import size_of
from multimodal_gen.runtime.pipelines.families.wan import WanPipeline
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_CLIP = ("image_processor", "image_encoder")


class WanImageToVideoPipeline(WanPipeline):
    """The first frame goes in beside the noise, as channels with a mask of what is given; models
    with an `image_dim` are also shown the picture's CLIP tokens."""

    family = WAN_IMAGE_TO_VIDEO
    pictures_told = ("encoder_hidden_states_image",)
    widths: ClassVar = {"transformer.image_dim": ("image_encoder.hidden_size",)}
    experts_defaults = IMAGE_EXPERTS_DEFAULTS
    latent_widths = ("vae.z_dim", "vae.z_dim", "vae.scale_factor_temporal")

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        unseen = name in _CLIP and not _sees_tokens(checkpoint)
        return unseen or super().is_absent(checkpoint, name)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if _sees_tokens(checkpoint):
            for name in _CLIP:
                checkpoint.require(name, cls.family.components[name].classes)

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        picture = state.pictures["image"]
        shown = {"first_frame": self._first_frame(state, picture), **self._tokens(picture)}
        for conditioning in state.conditioning.values():
            conditioning |= shown

    def _first_frame(self, state: RequestState, picture: Picture) -> Tensor:
        """[1, 4 + C, T, h, w]: which of its frames each latent frame is given, then the latents of
        a video that is the picture and then grey."""
        frames = state.params.num_frames
        assert frames is not None
        pixels = fit_image(picture, *size_of(state.params)).unsqueeze(2)
        video = F.pad(pixels, (0, 0, 0, 0, 0, frames - 1))
        latents = self.vae.encode(video)
        mask = latents.new_zeros(1, self.frame_multiple, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat((mask, latents), dim=1).to(self.context.dtype)

    def _tokens(self, picture: Picture) -> Conditioning:
        """Of CLIP's last layer but one, where the model sees any."""
        encoder: Any = self.components.get("image_encoder")
        if encoder is None:
            return {}
        processor = self.components["image_processor"]
        inputs = processor(images=PIL.Image.fromarray(picture), return_tensors="pt")
        pixels = inputs["pixel_values"].to(encoder.device, encoder.dtype)
        states: Tensor = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        return {"encoder_hidden_states_image": states.to(self.context.dtype)}

    def predict(self, rows: Rows) -> Tensor:
        latents = rows.latents.to(self.context.dtype)
        beside = torch.cat((latents, rows.conditioning["first_frame"]), dim=1)
        return self.velocity(rows, beside, rows.timesteps[:, None])


def _sees_tokens(checkpoint: Checkpoint) -> bool:
    """Only the first expert is asked, as in the reference."""
    if "transformer" not in checkpoint.components:
        return False
    return checkpoint.config("transformer").get("image_dim") is not None


PIPELINE = WanImageToVideoPipeline
