"""Image and mask inputs of Stable Diffusion's UNets."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.input_images import fit_image, fit_mask
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, noise_model_start
from multimodal_gen.runtime.pipelines.start.unmasked_latents import restore_unmasked_latents
from multimodal_gen.runtime.stages.request_state import RequestState


class UNetStart:
    """Starts from an image; inpaints with a UNet that was made for it, or one that was not."""

    def __init__(self, layout: LatentLayout, *, shows_mask: bool) -> None:
        """`shows_mask`: the UNet's input includes the mask, and the image outside of it."""
        self._layout = layout
        self._shows_mask = shows_mask
        self._pictures = PictureStart(layout, noise_model_start)

    def __call__(self, state: RequestState, solver: Solver) -> None:
        if "mask" not in state.pictures:
            self._pictures(state, solver)
            return
        self._pictures.begin(state, solver)
        clean, noise = self._begin_inpainting(state, solver)
        mask = self._pictures.mask(state)
        if self._shows_mask:
            shown = {"mask": mask, "masked_latents": self._masked_picture(state)}
            state.conditioning = {
                branch: {**told, **shown} for branch, told in state.conditioning.items()
            }
        elif clean is not None:
            # The reference also encodes the masked image here, which draws from the generator.
            torch.randn(clean.shape, generator=state.generator, dtype=self._layout.vae.dtype)
            restore_unmasked_latents(state, clean, noise, mask)

    def begin(self, state: RequestState, solver: Solver) -> None:
        self._pictures.begin(state, solver)

    def _begin_inpainting(
        self, state: RequestState, solver: Solver
    ) -> tuple[Tensor | None, Tensor]:
        """Start like image-to-image, but from pure noise if the strength is 1."""
        from_noise = state.params.strength == 1
        clean = None if from_noise and self._shows_mask else self._pictures.picture(state)
        noise = self._layout.noise(state.params, state.generator)
        if from_noise or clean is None:
            state.latents = solver.init_noise(noise)
        else:
            state.latents = solver.add_noise(clean, noise, state.evaluation)
        return clean, noise

    def _masked_picture(self, state: RequestState) -> Tensor:
        """Latents of the image, grey where it changes."""
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        return self._layout.encode(pixels * (mask < 0.5), state.generator)
