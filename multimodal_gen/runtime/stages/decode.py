"""Decodes latents to pixels and sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from multimodal_gen.runtime.distributed.first_rank import make_sharing
from multimodal_gen.runtime.stages.overlay import with_unmasked
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import join
from multimodal_gen.runtime.stages.stage import Pipeline
from multimodal_gen.scheduling.working_memory import DECODERS


class DecodeStage:
    """Decodes the next k units of each request: chunks on rank 0, or tiles or bands on all. With
    the last one, rank 0 decodes the sound. Tiles of a model that enlarges are such units, too.

    All ranks get the pixels from which a later pass starts.
    """

    def __init__(self, pipeline: Pipeline, *, is_output_rank: bool) -> None:
        self._pipeline = pipeline
        self._is_output_rank = is_output_rank
        self._shared = make_sharing(pipeline.context.mesh, pipeline.context.device)
        self.uses = pipeline.components_of_kind(*DECODERS)

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        states = [state for state in states if _is_decoded(state)]
        by_all = any(self._pipeline.decoded_by_all(state.params) for state in states)
        here = bool(states) and (self._is_output_rank or by_all)
        return self.uses if here else ()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for together in self._groups(states):
            first = together[0]
            units = decode_units(self._pipeline, first)
            for unit in range(first.decoded, min(first.decoded + k, units)):
                self._decode(together, unit)
                for state in together:
                    state.decoded += 1
            if self._is_output_rank and first.decoded == units:
                for state in together:
                    self._decode_sound(state)

    def _decode(self, together: Sequence[RequestState], unit: int) -> None:
        first = together[0]
        if first.upsampler is not None:
            return
        if first.shared is not None:
            frames = first.shared.advance(
                lambda pixels: first.measure(pixels, "decoding"), partial(_finished, first)
            )
            first.chunks += frames if first.second is None else self._given_to_all(lambda: frames)
        elif first.second is not None:
            first.chunks += self._given_to_all(partial(self._decoded, together, unit))
        elif self._is_output_rank:
            for state, pixels in zip(together, self._decoded(together, unit), strict=True):
                state.chunks.append(with_unmasked(state, pixels))

    def _decoded(self, together: Sequence[RequestState], unit: int) -> Sequence[Tensor]:
        """Pixels of each request's next chunk."""
        latents = join([state.running()[1] for state in together])
        return self._pipeline.decode(together, latents, unit).chunk(len(together))

    def _given_to_all(self, make: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Frames that rank 0 makes. Raises what it raises, on all ranks alike."""
        shared = self._shared(lambda: {"": {str(i): each for i, each in enumerate(make())}})
        return [*shared[""].values()]

    def _decode_sound(self, state: RequestState) -> None:
        if not _is_decoded(state):
            return
        if state.audio is None:  # an earlier try may have got this far
            self._pipeline.decode_sound(state)
        if state.audio is not None:
            state.audio = state.audio.float().contiguous()
            state.measure(state.audio, "decoding the sound")

    def _groups(self, states: Sequence[RequestState]) -> list[list[RequestState]]:
        """Group states of equal size, as many as can be decoded together."""
        groups: list[list[RequestState]] = []
        open_groups: dict[object, list[RequestState]] = {}
        for state in states:
            if state.shared is None and state.upsampler is None:
                state.shared = self._pipeline.shared_decoding(state)
            size = _size(state)
            group = open_groups.get(size)
            alone = size is None or state.second is not None  # so that all ranks do it in order
            most = 1 if alone else self._pipeline.decoded_at_once(state.params)
            if group is None or alone or len(group) >= most:
                group = open_groups[size] = []
                groups.append(group)
            group.append(state)
        return groups


def decode_units(pipeline: Pipeline, state: RequestState) -> int:
    """Number of units of a pass in the decoding phase."""
    enlargement = state.enlargement
    if state.upsampler is not None:
        return 1
    return pipeline.decode_chunks(state.params) if enlargement is None else enlargement.units


def _is_decoded(state: RequestState) -> bool:
    """False for a pass whose pixels a model makes, or which has none."""
    return state.enlargement is None and state.upsampler is None


def _size(state: RequestState) -> object:
    """Return what must be equal of requests that are decoded together; None: it is enlarged."""
    if state.enlargement is not None:
        return None
    _, latents = state.running()
    return state.params.width, state.params.height, latents.shape


def _finished(state: RequestState, pixels: Tensor) -> Tensor:
    if state.enlargement is not None:
        return state.enlargement.fitted(pixels)
    return with_unmasked(state, pixels)
