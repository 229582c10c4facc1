"""Encoding of prompts, each once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class EncodedPrompts:
    """The conditioning of prompts, remembered also by the LoRAs that change the encoders."""

    def __init__(self, loras: LoadedLoras) -> None:
        self.cache = ConditioningCache()
        self._loras = loras

    def encoded(
        self, state: RequestState, branch: str, encode: Callable[[str, int], Conditioning]
    ) -> Conditioning:
        """A branch's text by `encode(text, length)`, in as many tokens as the request's
        `max_sequence_length` says."""
        text, length = text_of(state.params, branch), state.params.max_sequence_length
        assert length is not None
        return self.remembered(state, (text, length), lambda: encode(text, length))

    def remembered(
        self, state: RequestState, key: Hashable, encode: Callable[[], Conditioning]
    ) -> Conditioning:
        """The conditioning under `key`, made by `encode` where it isn't remembered."""
        return self.cache.get((key, self._loras.of_encoders(state.loras)), encode)


def text_of(params: SamplingParams, branch: str) -> str:
    """What a branch encodes: without a negative prompt, the empty text."""
    return params.prompt if branch == "positive" else params.negative_prompt or ""
