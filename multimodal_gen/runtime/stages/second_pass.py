"""The passes of a request that is upscaled, each of which starts from the pixels of the one before:
a model that enlarges, then image-to-image."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import msgspec
import torch

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import (
    UpscaleChoice,
    enlarged_by_model,
    naming_upscale,
    second_pass,
)
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.pictures import controls_of
from multimodal_gen.runtime.loader.upscalers import OWN
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.upscaler import Enlargement, Upscaler
from multimodal_gen.runtime.stages.decode import decode_units
from multimodal_gen.runtime.stages.encode import EncodeStage
from multimodal_gen.runtime.stages.extrapolation import plan_quality
from multimodal_gen.runtime.stages.prepare import PrepareStage
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


class ExpectEnlargement:
    """Loads the model that enlarges, before anything is computed, and adds its pass."""

    uses: tuple[str, ...] = ()

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        return self._pipeline.components_of_kind()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            if (choice := state.params.upscale) is not None:
                self._expect(state, choice)

    def _expect(self, state: RequestState, choice: UpscaleChoice) -> None:
        if choice.model is None and not self._pipeline.enlarges_latents:
            return
        upscaler = self._pipeline.upscalers.load(OWN if choice.model is None else choice.model)
        self._check(choice, upscaler)
        params = enlarged_by_model(state.params)
        if isinstance(upscaler, LatentUpsampler):
            state.upsampler = upscaler
        elif params is not None:
            state.second = _later(state, params)
            state.second.enlargement = self._enlargement(state, upscaler)

    def _check(self, choice: UpscaleChoice, upscaler: Upscaler | LatentUpsampler) -> None:
        """Raise InvalidRequest for a model that does not fit the request or the pipeline."""
        if self._pipeline.enlarges_latents:
            self._pipeline.check_upsampler(choice, upscaler)
        elif isinstance(upscaler, LatentUpsampler):
            allowed = "enlarges latents of another model"
            raise InvalidRequest("upscale", upscaler.name, allowed)

    def _enlargement(self, state: RequestState, upscaler: Upscaler) -> Enlargement:
        given, choice, mesh = state.params, state.params.upscale, self._pipeline.context.mesh
        assert given.height is not None
        assert given.width is not None
        assert choice is not None
        grid = upscaler.grid(given.num_frames or 1, given.height, given.width)
        made = enlarged_by_model(given)
        assert made is not None
        assert made.height is not None
        assert made.width is not None
        last = choice.strength is None  # else the second pass resizes what it starts from
        size = (made.height, made.width) if last else None
        return Enlargement(upscaler, grid, mesh.rank, mesh.world_size, size)


class ExpectSecondPass:
    """Adds the second pass with its conditioning and its number of evaluations, so that all of
    them are known from the start."""

    def __init__(self, pipeline: Pipeline, encode: EncodeStage) -> None:
        self._pipeline = pipeline
        self._encode = encode
        self.uses = encode.uses

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        return self._encode.components(states, k)

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            params = second_pass(state.params, self._pipeline.size_multiple)
            if params is None:
                continue
            second = _later(state, params)
            second.loras = state.loras
            second.controls = tuple(map(copy, state.controls))
            self._encode([second], k)
            with naming_upscale(state.params):
                self._expect(second)
            state.passes[-1].second = second

    def _expect(self, second: RequestState) -> None:
        """Set its solver, its first evaluation and latents of the right shape, without an image."""
        self._pipeline.prepare(second)
        solver, _ = second.running()
        self._pipeline.start.begin(second, solver)
        second.first = second.evaluation
        second.branches = self._pipeline.combined(second)
        plan_quality(self._pipeline, second)


class StartNextPass:
    """Starts the next pass of the requests whose pixels are complete: a second pass from an image
    of them that is enlarged by Lanczos."""

    def __init__(self, pipeline: Pipeline, prepare: PrepareStage) -> None:
        self._pipeline = pipeline
        self._prepare = prepare
        self.uses = prepare.uses

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        second = any(s.second is not None and s.second.enlargement is None for s in states)
        return self._prepare.uses if second else self._pipeline.components_of_kind()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            complete = state.decoded == decode_units(self._pipeline, state)
            if state.second is not None and complete and not state.second.is_begun:
                self._start(state, state.second)

    def _start(self, state: RequestState, later: RequestState) -> None:
        if later.enlargement is not None:
            later.shared = later.enlargement.run(state.chunks)
            later.audio, later.audio_rate = state.audio, state.audio_rate
            later.pictures = controls_of(state.pictures)
            return
        if state.upsampler is not None:
            later.clean = self._pipeline.enlarged(state, state.upsampler)
            self._prepare_again(later)
            return
        image = torch.cat(state.chunks)[0].cpu().numpy()
        later.pictures = {"image": image, **controls_of(state.pictures)}
        headers = {name: header_of(picture) for name, picture in later.pictures.items()}
        later.req = msgspec.structs.replace(later.req, pictures=headers)
        self._prepare_again(later)

    def _prepare_again(self, later: RequestState) -> None:
        try:
            self._prepare([later], 1)
        except Exception:
            later.pictures, later.clean = {}, None
            raise


def _later(state: RequestState, params: SamplingParams) -> RequestState:
    return RequestState.of(msgspec.structs.replace(state.req, params=params, pictures={}))
