"""Command-line flags of a request: one per sampling parameter, with its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

from multimodal_gen.configs.lora_choice import LoraChoice
from multimodal_gen.configs.parameters import SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams


def _loras(kind: Any, tokens: Sequence[Token]) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice.of(token.value) for token in tokens)


_LORA_HELP = " Each is NAME or NAME:SCALE; repeat the flag for several."
_ONE_WORD = Parameter(converter=_loras, n_tokens=1, accepts_keys=False)


def _flag(parameter: SamplingParameter) -> tuple[str, Any, Any]:
    """Return the parameter as a field of a dataclass whose fields are flags."""
    flag = Parameter(help=parameter.summary)
    if parameter.name == "lora":
        flag = Parameter.combine(_ONE_WORD, Parameter(help=parameter.summary + _LORA_HELP))
    kind: Any = Annotated
    return parameter.name, kind[parameter.annotation, flag], field(default=parameter.default)


if TYPE_CHECKING:
    RequestFlags = SamplingParams
else:
    RequestFlags = make_dataclass(
        "RequestFlags",
        map(_flag, PARAMETERS.values()),
        bases=(SamplingParams,),
        namespace={"__module__": __name__},
        frozen=True,
        kw_only=True,
    )
