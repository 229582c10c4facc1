"""What a picture is to a Wan model: nothing, a frame that is kept, or one that is shown."""

from __future__ import annotations

from typing import Any, Protocol

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.input_images import InputImage, fit_image
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class FirstFrame(Protocol):
    """Brings a request's picture into its evaluations."""

    def prepare(self, state: RequestState) -> None:
        """Add it to a request that has its noise."""

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """What the transformer takes: latents [R, C, T, h, w] and timesteps [R, 1 or 2]."""


class NoFirstFrame:
    """A text, and a video of nothing but noise."""

    def prepare(self, state: RequestState) -> None:
        pass

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return rows.latents, rows.timesteps[:, None]


class KeptFirstFrame:
    """TI2V: a picture is the first latent frame from the start on, at timestep 0."""

    def __init__(self, layout: LatentLayout) -> None:
        self._layout = layout

    def prepare(self, state: RequestState) -> None:
        picture = state.pictures.get("image")
        noisy = torch.tensor([float(picture is None)], device=self._layout.device)
        for conditioning in state.conditioning.values():
            conditioning["first_frame_noisy"] = noisy
        if picture is not None:
            _, noise = state.running()
            pixels = fit_image(picture, *size_of(state.params)).unsqueeze(2)
            keep = KeepFirstFrame(self._layout.encode(pixels))
            state.latents = keep.put_into(noise)
            state.after_step.append(keep)

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        first = rows.timesteps * rows.conditioning["first_frame_noisy"]
        return rows.latents, torch.stack((first, rows.timesteps.to(first.dtype)), dim=1)


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


class ShownFirstFrame:
    """I2V: the picture goes in beside the noise, as channels with a mask of what is given; models
    with an image encoder are also shown the picture's CLIP tokens."""

    def __init__(
        self, layout: LatentLayout, dtype: torch.dtype, processor: Any, encoder: Any
    ) -> None:
        """`dtype` is the transformer's; `processor` and `encoder` are CLIP's or None."""
        self._layout = layout
        self._dtype = dtype
        self._processor = processor
        self._encoder = encoder

    def prepare(self, state: RequestState) -> None:
        picture = state.pictures["image"]
        shown = {"first_frame": self._channels(state, picture), **self._tokens(picture)}
        for conditioning in state.conditioning.values():
            conditioning |= shown

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        latents = rows.latents.to(self._dtype)
        beside = torch.cat((latents, rows.conditioning["first_frame"]), dim=1)
        return beside, rows.timesteps[:, None]

    def _channels(self, state: RequestState, picture: InputImage) -> Tensor:
        """[1, 4 + C, T, h, w]: which of its frames each latent frame is given, then the latents of
        a video that is the picture and then grey."""
        frames, vae = state.params.num_frames, self._layout.vae
        assert frames is not None
        pixels = fit_image(picture, *size_of(state.params)).unsqueeze(2)
        latents = vae.encode(F.pad(pixels, (0, 0, 0, 0, 0, frames - 1)))
        mask = latents.new_zeros(1, vae.frame_multiple, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat((mask, latents), dim=1).to(self._dtype)

    def _tokens(self, picture: InputImage) -> Conditioning:
        """Of CLIP's last layer but one, where the model sees any."""
        encoder = self._encoder
        if encoder is None:
            return {}
        inputs = self._processor(images=PIL.Image.fromarray(picture), return_tensors="pt")
        pixels = inputs["pixel_values"].to(encoder.device, encoder.dtype)
        states: Tensor = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        return {"encoder_hidden_states_image": states.to(self._dtype)}
