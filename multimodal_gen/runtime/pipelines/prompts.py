"""Encodes prompts, each only once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class EncodedPrompts:
    """Cache of prompts' conditioning, which also depends on LoRAs that change the encoders."""

    def __init__(self, loras: LoadedLoras, hold_encoders: Callable[[], None]) -> None:
        """`hold_encoders` makes the text encoders resident: only new prompts need them."""
        self.cache = ConditioningCache()
        self._loras = loras
        self._hold_encoders = hold_encoders

    def encoded(
        self, state: RequestState, branch: str, encode: Callable[[str, int], Conditioning]
    ) -> Conditioning:
        """Encode a branch's text by `encode(text, length)`, with the request's
        `max_sequence_length` as length."""
        text, length = text_of(state.params, branch), state.params.max_sequence_length
        assert length is not None
        return self.remembered(state, (text, length), lambda: encode(text, length))

    def remembered(
        self, state: RequestState, key: Hashable, encode: Callable[[], Conditioning]
    ) -> Conditioning:
        """Return the conditioning for `key`; calls `encode` if it is not cached."""

        def encode_here() -> Conditioning:
            self._hold_encoders()
            return encode()

        return self.cache.get((key, self._loras.of_encoders(state.loras_now)), encode_here)


def text_of(params: SamplingParams, branch: str) -> str:
    """Text of a branch; empty without a negative prompt."""
    return params.prompt if branch == "positive" else params.negative_prompt or ""
