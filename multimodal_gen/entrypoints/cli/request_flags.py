"""The flags of a request: the fields of SamplingParams, as they are written on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter, Token

from multimodal_gen.configs.sampling_params import (
    LoraChoice,
    Priority,  # noqa: F401  an inherited field's annotation is looked up here
    SamplingParams,
)


def _loras(kind: Any, tokens: Sequence[Token]) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice.of(token.value) for token in tokens)


@dataclass(frozen=True, kw_only=True)
class RequestFlags(SamplingParams):
    """A LoRA is one word."""

    lora: Annotated[
        tuple[LoraChoice, ...],
        Parameter(converter=_loras, n_tokens=1, accepts_keys=False),
    ] = ()
    """NAME or NAME:SCALE of a LoRA in --lora-dir; repeat it for several."""
