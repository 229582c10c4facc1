"""Attentions of a denoiser that image prompts are added to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.attention.image_prompts import (
    ImagePrompt,
    ImagePrompts,
    PromptAttention,
)
from multimodal_gen.runtime.layers.linear import Linear


class PromptPlaces(ABC):
    """The attentions, in the order of the files."""

    black: bool
    """True if a branch without the picture is shown a black one, False if it is shown none."""
    widths: Sequence[int]
    """Width of each attention's queries."""

    @abstractmethod
    def keys_values(self, at: int, width: int, *, bias: bool) -> Linear:
        """Create the layer, without weights, that makes keys and values of tokens [..., width]."""

    @abstractmethod
    def applied(self, prompts: Sequence[ImagePrompt]) -> AbstractContextManager[None]:
        """Context in which the denoiser adds these, one for each attention."""


class JointPlaces(PromptPlaces):
    """Places in a transformer of this project."""

    black = True

    def __init__(self, places: Sequence[ImagePrompts]) -> None:
        self._places = places
        self.widths = [place.dim for place in places]

    def keys_values(self, at: int, width: int, *, bias: bool) -> Linear:
        return self._places[at].keys_values(width, bias=bias)

    @contextmanager
    def applied(self, prompts: Sequence[ImagePrompt]) -> Iterator[None]:
        for place, prompt in zip(self._places, prompts, strict=True):
            place.now.append(prompt)
        try:
            yield
        finally:
            for place in self._places:
                place.now.pop()


class CrossPlaces(PromptPlaces):
    """The attentions to text of the library's UNet: by hooks."""

    black = False

    def __init__(self, attentions: Sequence[Any], attend: PromptAttention) -> None:
        self._attentions = attentions
        self._attend = attend
        self.widths = [attention.inner_dim for attention in attentions]

    def keys_values(self, at: int, width: int, *, bias: bool) -> Linear:
        return Linear((2 * self.widths[at], width), bias=bias)

    @contextmanager
    def applied(self, prompts: Sequence[ImagePrompt]) -> Iterator[None]:
        with ExitStack() as stack:
            for attention, prompt in zip(self._attentions, prompts, strict=True):
                queries: list[Tensor] = []
                keep = partial(_keep, queries)
                add = partial(self._add, prompt, attention.heads, queries)
                stack.callback(attention.to_q.register_forward_hook(keep).remove)
                stack.callback(attention.to_out[0].register_forward_pre_hook(add).remove)
            yield

    def _add(
        self,
        prompt: ImagePrompt,
        heads: int,
        queries: list[Tensor],
        _: nn.Module,
        args: tuple[Tensor],
    ) -> None:
        prompt.add(queries.pop().unflatten(-1, (heads, -1)), args[0], self._attend)


def _keep(queries: list[Tensor], _: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
    # LoRAs of other hooks are added to it in place.
    queries.append(output)


def places_in(denoiser: nn.Module, context: RankContext) -> PromptPlaces | None:
    """The attentions of a denoiser; None if it has none for image prompts."""
    prompts = (getattr(each, "prompts", None) for each in denoiser.modules())
    if own := [each for each in prompts if isinstance(each, ImagePrompts)]:
        return JointPlaces(own)
    crossed = [
        each
        for name, each in denoiser.named_modules()
        if isinstance(each, Attention) and name.endswith(".attn2")
    ]
    return (
        CrossPlaces(crossed, select_attention(context.attention_backend, context.device))
        if crossed
        else None
    )
