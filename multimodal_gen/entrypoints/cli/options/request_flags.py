"""Command-line flags of a request: one per sampling parameter, with its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.parameters import NUMBERS, SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice


def _loras(kind: Any, tokens: Sequence[Token]) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice.of(token.value) for token in tokens)


def _controls(kind: Any, tokens: Sequence[Token]) -> tuple[ControlChoice, ...]:
    return tuple(ControlChoice.of(token.value) for token in tokens)


def _whole(kind: Any, value: str, *, delimiter: str | None = None) -> list[str]:
    """An environment variable is one value, spaces included."""
    return [value]


def _upscale(kind: Any, tokens: Sequence[Token]) -> UpscaleChoice:
    return UpscaleChoice.of(tokens[0].value)


_MORE_HELP = {
    "upscale": "[MODEL@]FACTOR[:STRENGTH[:STEPS]].",
    "prompt": "Repeatable: each is a request.",
    "image_path": "One per prompt, or all for one.",
    "mask_path": "Repeatable.",
    "lora": "NAME[:SCALE][@TARGET][@START-STOP].",
    "control": "NAME[/MODE]=IMAGE[:SCALE][@START-STOP].",
}
_REPEATED = ("prompt", "image_path", "mask_path")
"""Parameters of which a command takes several, for several requests."""
_ONE_WORD = {
    "lora": Parameter(converter=_loras, n_tokens=1, accepts_keys=False),
    "control": Parameter(converter=_controls, n_tokens=1, accepts_keys=False),
    "upscale": Parameter(converter=_upscale, n_tokens=1, accepts_keys=False),
}


def _flag(parameter: SamplingParameter) -> tuple[str, Any, Any]:
    """Return the parameter as a field of a dataclass whose fields are flags."""
    name = parameter.name
    flag = Parameter(help=" ".join(filter(None, (parameter.summary, _MORE_HELP.get(name)))))
    kind: Any = Annotated
    if name in _REPEATED:
        several = Parameter.combine(Parameter(env_var_split=_whole), flag)
        return name, kind[tuple[str, ...], several], field(default=())
    if parameter.kind == NUMBERS:
        flag = Parameter.combine(Parameter(consume_multiple=True), flag)
    if name in _ONE_WORD:
        flag = Parameter.combine(_ONE_WORD[name], flag)
    return name, kind[parameter.annotation, flag], field(default=parameter.default)


class _Requests:
    """Requests that the flags ask for."""

    image_path: tuple[str, ...]
    mask_path: tuple[str, ...]

    def common(self) -> SamplingParams:
        """Return the parameters that all requests share; a single image or mask is one of them."""
        given = {name: getattr(self, name) for name in PARAMETERS if name not in _REPEATED}
        one_image = self.image_path if len(self.image_path) == 1 else None
        one_mask = self.mask_path[0] if len(self.mask_path) == 1 else None
        return SamplingParams(**given, image_path=one_image, mask_path=one_mask)


if TYPE_CHECKING:

    class RequestFlags(_Requests):
        """The flags that code reads by name."""

        prompt: tuple[str, ...]

else:
    RequestFlags = make_dataclass(
        "RequestFlags",
        map(_flag, PARAMETERS.values()),
        bases=(_Requests,),
        namespace={"__module__": __name__},
        frozen=True,
        kw_only=True,
    )
