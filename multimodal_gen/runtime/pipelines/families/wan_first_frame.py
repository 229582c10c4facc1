"""Uses of a Wan request's input image: none, a first frame that is kept, or conditioning."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.input_images import fit_image
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.stages.request_state import Estimate, RequestState
from multimodal_gen.runtime.stages.rows import Rows

GIVEN_FRAMES = ("image", "last_image")
"""Names of the input images that are frames of the video."""


class FirstFrame(Protocol):
    """Adds a request's input image to its evaluations."""

    def prepare(self, state: RequestState) -> None:
        """Add the image to a request that has its noise."""

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Inputs of the transformer: latents [R, C, T, h, w] and timesteps [R, 1 or 2]."""


class NoFirstFrame:
    """Text only: the video starts from pure noise."""

    def prepare(self, state: RequestState) -> None:
        pass

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return rows.latents, rows.timesteps[:, None]


class KeptFirstFrame:
    """TI2V: the image is the first latent frame from the start, at timestep 0."""

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
    """Called after each step of one request: restores the given first frame, without noise."""

    def __init__(self, first: Tensor) -> None:
        """`first` is one latent frame, [1, C, 1, h, w]."""
        self._first = first

    def put_into(self, latents: Tensor) -> Tensor:
        return torch.cat((self._first.to(latents.dtype), latents[:, :, 1:]), dim=2)

    def __call__(self, state: RequestState, x0: Estimate) -> None:
        _, latents = state.running()
        state.latents = self.put_into(latents)


class ShownFirstFrame:
    """I2V: the image, and one of the last frame, are concatenated to the noise, as channels with a
    mask of the given frames."""

    def __init__(self, layout: LatentLayout, dtype: torch.dtype) -> None:
        """`dtype` is the transformer's."""
        self._layout = layout
        self._dtype = dtype

    def prepare(self, state: RequestState) -> None:
        channels = self._channels(state)
        for conditioning in state.conditioning.values():
            conditioning["first_frame"] = channels

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor]:
        latents = rows.latents.to(self._dtype)
        beside = torch.cat((latents, rows.conditioning["first_frame"]), dim=1)
        return beside, rows.timesteps[:, None]

    def _channels(self, state: RequestState) -> Tensor:
        """[1, 4 + C, T, h, w]: a mask of the given frames per latent frame, then the latents of a
        video of the image, followed by grey and the last frame."""
        frames, vae = state.params.num_frames, self._layout.vae
        assert frames is not None
        given = [state.pictures[name] for name in GIVEN_FRAMES if name in state.pictures]
        first, *last = (fit_image(each, *size_of(state.params)).unsqueeze(2) for each in given)
        grey = first.new_zeros(first.shape).expand(-1, -1, frames - len(given), -1, -1)
        latents = vae.encode(torch.cat((first, grey, *last), dim=2))
        mask = latents.new_zeros(1, vae.frame_multiple, *latents.shape[2:])
        mask[:, :, 0] = 1
        if last:
            mask[:, -1, -1] = 1
        return torch.cat((mask, latents), dim=1).to(self._dtype)
