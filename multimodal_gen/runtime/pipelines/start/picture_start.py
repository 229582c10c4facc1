"""Starts from an image instead of pure noise."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.input_images import fit_image, fit_mask, fit_video
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.pipelines.start.unmasked_latents import restore_unmasked_latents
from multimodal_gen.runtime.stages.request_state import RequestState

FirstStep = Callable[[int, float], int]
"""(steps, strength) -> the first step for an image."""
ApplyMask = Callable[[RequestState, Tensor, Tensor, Tensor], None]
"""Applies a mask, given the state, the image's latents, the noise, and the latents' mask."""


def noise_model_start(steps: int, strength: float) -> int:
    """First step in diffusers' pipelines for noise prediction, which round the remaining steps
    down."""
    return steps - min(int(steps * strength), steps)


def flow_model_start(steps: int, strength: float) -> int:
    """First step in diffusers' pipelines for flow matching, which round the remaining steps up."""
    return int(max(steps - min(steps * strength, steps), 0))


def video_latents(layout: LatentLayout, state: RequestState, *, drawn: bool = False) -> Tensor:
    """Clean latents of the frames of the request's video; `drawn` from the posterior."""
    video = fit_video(state.pictures["video"][: state.params.num_frames], *size_of(state.params))
    return layout.encode(video, state.generator if drawn else None)


class PictureStart:
    """SDEdit (Meng et al. 2022): the image, with the noise of the skipped steps."""

    def __init__(
        self,
        layout: LatentLayout,
        first_step: FirstStep,
        apply_mask: ApplyMask = restore_unmasked_latents,
        picture: Callable[[RequestState], Tensor] | None = None,
    ) -> None:
        """`picture` returns clean latents of a request's image; by default they are drawn from the
        posterior at the request's size."""
        self.picture = picture or self._drawn
        self._layout = layout
        self._first_step = first_step
        self._apply_mask = apply_mask

    def __call__(self, state: RequestState, solver: Solver) -> None:
        clean = self.picture(state)
        noise = self._layout.noise(state.params, state.generator)
        self.begin(state, solver)
        state.latents = solver.add_noise(clean, noise, state.evaluation)
        if "mask" in state.pictures:
            self._apply_mask(state, clean, noise, self.mask(state))

    def _drawn(self, state: RequestState) -> Tensor:
        """Clean latents [1, ...] of the request's image, drawn from the posterior."""
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        return self._layout.encode(pixels, state.generator)

    def mask(self, state: RequestState) -> Tensor:
        """Mask of the request in the layout of the latents, [1, ...]: 1 where the image changes, 0
        where it is kept."""
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        return self._layout.mask(mask, state.params)

    def begin(self, state: RequestState, solver: Solver) -> None:
        """As of `Start`. Raises InvalidRequest if none is left."""
        params = state.params
        assert params.num_inference_steps is not None
        assert params.strength is not None
        steps = params.num_inference_steps
        first = self._first_step(steps, params.strength) * solver.order
        if first >= solver.num_evaluations:
            allowed = f"leaves none of num_inference_steps={steps} to do; increase one of them"
            raise InvalidRequest("strength", params.strength, allowed)
        solver.begin(first)
        state.evaluation = first
