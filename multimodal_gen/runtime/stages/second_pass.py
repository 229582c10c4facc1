"""The second pass of a request that is upscaled, which starts from the pixels of the first."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import msgspec
import torch

from multimodal_gen.configs.second_pass import naming_upscale, second_pass
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.pictures import controls_of
from multimodal_gen.runtime.stages.encode import EncodeStage
from multimodal_gen.runtime.stages.prepare import PrepareStage
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


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
            second = RequestState.of(msgspec.structs.replace(state.req, params=params, pictures={}))
            second.loras = state.loras
            second.controls = tuple(map(copy, state.controls))
            self._encode([second], k)
            with naming_upscale(state.params):
                self._expect(second)
            state.second = second

    def _expect(self, second: RequestState) -> None:
        """Set its solver, its first evaluation and latents of the right shape, without an image."""
        self._pipeline.prepare(second)
        solver, _ = second.running()
        self._pipeline.start.begin(second, solver)


class StartSecondPass:
    """Starts the second pass of the requests whose first one is decoded, from an image of it that
    is enlarged by Lanczos."""

    def __init__(self, prepare: PrepareStage) -> None:
        self._prepare = prepare
        self.uses = prepare.uses

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        return self._prepare.uses if any(state.second is not None for state in states) else ()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            if state.second is not None and state.chunks and not state.second.pictures:
                self._start(state, state.second)

    def _start(self, state: RequestState, second: RequestState) -> None:
        """Its only chunks are those of a whole image."""
        image = torch.cat(state.chunks)[0].cpu().numpy()
        second.pictures = {"image": image, **controls_of(state.pictures)}
        headers = {name: header_of(picture) for name, picture in second.pictures.items()}
        second.req = msgspec.structs.replace(second.req, pictures=headers)
        try:
            self._prepare([second], 1)
        except Exception:
            second.pictures = {}
            raise
