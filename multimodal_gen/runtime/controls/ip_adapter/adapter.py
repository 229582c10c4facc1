"""An IP-Adapter (Ye et al. 2023, arXiv:2308.06721): attention to a picture and to the text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from multimodal_gen.runtime.controls.control import (
    Added,
    Control,
    ControlCall,
    ControlPicture,
    Told,
)
from multimodal_gen.runtime.controls.ip_adapter.picture_encoder import PictureEncoder
from multimodal_gen.runtime.controls.ip_adapter.places import PromptPlaces
from multimodal_gen.runtime.controls.ip_adapter.projections import PictureProjection
from multimodal_gen.runtime.layers.attention.image_prompts import ImagePrompt
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache

_CACHED_BYTES = 16 << 20


class IPAdapter(Control):
    """An adapter's networks, and the attentions of a denoiser that they are for."""

    def __init__(
        self,
        encoder: PictureEncoder,
        projection: PictureProjection,
        keys_values: Sequence[Linear],
        places: PromptPlaces,
    ) -> None:
        self._encoder = encoder
        self._projection = projection
        self._keys_values = keys_values
        self._places = places
        self._cache = ConditioningCache(_CACHED_BYTES)

    @property
    def tensors(self) -> Iterable[Tensor]:
        for module in (self._encoder.module, self._projection, *self._keys_values):
            yield from module.parameters()

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        pixels, states = picture.pixels, self._projection.sees_states
        key = (pixels.shape, hashlib.sha256(pixels.tobytes()).digest())
        unseen = self._encoder.black if self._places.black else self._encoder.nothing
        return {
            branch: self._told(key, lambda: self._encoder.seen(pixels, states=states))
            if branch == "positive"
            else self._told((), lambda: unseen(states=states))
            for branch in picture.branches
        }

    def _told(self, key: Hashable, see: Callable[[], Tensor]) -> Told:
        """Tokens [1, N, D] of what `see` returns, unless they are in the cache."""

        def tokens() -> Told:
            seen = see()
            return {"tokens": self._projection(seen.to(self._projection.dtype))}

        return self._cache.get(key, tokens)

    def joined(self, told: Sequence[Told]) -> Told:
        """Keys and values of each attention, made once for all evaluations of the rows."""
        tokens = super().joined(told)["tokens"]
        return {str(place): layer(tokens) for place, layer in enumerate(self._keys_values)}

    @contextmanager
    def applied(self, call: ControlCall) -> Iterator[Added]:
        prompts = [ImagePrompt(each, call.scale, call.rows) for each in call.told.values()]
        with self._places.applied(prompts):
            yield {}
