"""Command-line flags of a request: one per sampling parameter, with its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter, Token

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.parameters import NUMBERS, SamplingParameter
from multimodal_gen.configs.sampling.guidance import GuidanceParameters
from multimodal_gen.configs.sampling.inputs import InputParameters
from multimodal_gen.configs.sampling.output import OutputParameters
from multimodal_gen.configs.sampling.steps import StepParameters
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import InvalidRequest


def _loras(kind: Any, tokens: Sequence[Token]) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice.of(token.value) for token in tokens)


def _controls(kind: Any, tokens: Sequence[Token]) -> tuple[ControlChoice, ...]:
    return tuple(ControlChoice.of(token.value) for token in tokens)


def _number(name: str, kind: type[int] | type[float]) -> Parameter:
    def convert(_: Any, tokens: Sequence[Token]) -> float:
        try:
            return kind(tokens[0].value)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise InvalidRequest(name, tokens[0].value, f"must be {word}") from None

    return Parameter(converter=convert, n_tokens=1, accepts_keys=False)


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
_SHORT = {
    "num_outputs_per_prompt": "-n",
    "num_inference_steps": "--steps",
    "width": "-W",
    "height": "-H",
    "seed": "-s",
}
_GROUPS = {
    "Prompt and size": OutputParameters,
    "Steps": StepParameters,
    "Guidance": GuidanceParameters,
    "Input images and videos": InputParameters,
}
_OTHERS = "Adapters and queue"
_ONE_WORD = {
    "lora": Parameter(converter=_loras, n_tokens=1, accepts_keys=False),
    "control": Parameter(converter=_controls, n_tokens=1, accepts_keys=False),
    "upscale": Parameter(converter=_upscale, n_tokens=1, accepts_keys=False),
}


def _group_of(name: str) -> Group:
    titles = [*_GROUPS, _OTHERS]
    declared = (title for title, kind in _GROUPS.items() if hasattr(kind, name))
    title = next(declared, _OTHERS)
    return Group(title, sort_key=2 + titles.index(title))


def _flag(parameter: SamplingParameter) -> tuple[str, Any, Any]:
    """Return the parameter as a field of a dataclass whose fields are flags."""
    name = parameter.name
    text = " ".join(filter(None, (parameter.summary, _MORE_HELP.get(name))))
    flag = Parameter(help=text, alias=_SHORT.get(name), group=_group_of(name))
    kind: Any = Annotated
    if name in _REPEATED:
        several = Parameter.combine(Parameter(env_var_split=_whole), flag)
        return name, kind[tuple[str, ...], several], field(default=())
    if parameter.kind == NUMBERS:
        flag = Parameter.combine(Parameter(consume_multiple=True), flag)
    if parameter.kind in (int, float):
        flag = Parameter.combine(_number(name, parameter.kind), flag)
    if name in _ONE_WORD:
        flag = Parameter.combine(_ONE_WORD[name], flag)
    return name, kind[parameter.annotation, flag], field(default=parameter.default)


class _Requests:
    """Requests that the flags ask for."""

    image_path: tuple[str, ...]
    mask_path: tuple[str, ...]

    def common(self, base: SamplingParams | None = None) -> SamplingParams:
        """Return the parameters that all requests share, those of `base` where no flag sets them; a
        single image or mask is one of them."""
        set_here = {
            name: value
            for name, parameter in PARAMETERS.items()
            if name not in _REPEATED and (value := getattr(self, name)) != parameter.default
        }
        if len(self.image_path) == 1:
            set_here["image_path"] = self.image_path
        if len(self.mask_path) == 1:
            (set_here["mask_path"],) = self.mask_path
        return (base or SamplingParams()).updated(**set_here)


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
