"""The sampling parameters as rows of a reference table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multimodal_gen.configs.parameter_spec import Bound, Need
from multimodal_gen.configs.parameters import SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS

_TYPES = {int: "integer", float: "number", str: "text", bool: "boolean"}
_NEEDS: dict[Need, str] = {
    "parameter": "a model that lists it in `parameters`",
    "image_model": "a model that takes an input image",
    "image": "an input image or video",
    "mask": "an input image and a mask",
    "video": "a video model",
    "guidance": "a model with classifier-free guidance",
}


@dataclass(frozen=True)
class ReferenceRow:
    """Description of one sampling parameter. Backquoted names are keys of `GET /model_info`."""

    name: str
    """Name of the Python keyword and the JSON field."""
    flag: str
    type: str
    unit: str
    allowed: str
    """Range, multiples or choices; empty: any value of the type."""
    default: str
    needs: str
    help: str
    over_http: bool
    """Whether HTTP bodies have it; a local file is sent as a file instead."""


def reference_rows() -> list[ReferenceRow]:
    """One row per sampling parameter, in the order of declaration."""
    return [_row(parameter) for parameter in PARAMETERS.values()]


def _row(parameter: SamplingParameter) -> ReferenceRow:
    spec = parameter.spec
    return ReferenceRow(
        name=parameter.name,
        flag="--" + parameter.name.replace("_", "-"),
        type=_TYPES.get(parameter.kind) or ("choice" if parameter.choices else "list"),
        unit=spec.unit,
        allowed="; ".join(part for part in _allowed(parameter) if part),
        default=_default(parameter),
        needs=", ".join(_NEEDS[need] for need in spec.needs),
        help=f"{spec.help}.",
        over_http=not spec.local,
    )


def _allowed(parameter: SamplingParameter) -> Iterable[str]:
    spec = parameter.spec
    yield ", ".join(parameter.choices)
    if spec.lowest is not None:
        low, high = _in_words(spec.lowest), _in_words(spec.highest)
        yield f"more than {low}, up to {high}" if spec.exclusive else f"{low} to {high}"
    if spec.multiple_of:
        more = f"{_in_words(spec.remainder)} more than " if spec.remainder else ""
        yield f"{more}a multiple of `{spec.multiple_of}`"
    if spec.one_of:
        yield f"one of `{spec.one_of}`"


def _default(parameter: SamplingParameter) -> str:
    if parameter.spec.default:
        return parameter.spec.default
    if parameter.spec.model_default:
        return f"`defaults.{parameter.name}`"
    return str(parameter.default) if parameter.default else "none"


def _in_words(bound: Bound) -> str:
    if bound == "max_seed":  # derived by ModelInfo, and not in its JSON
        return "2^63 - 1 - `limits.max_outputs`"
    return f"`{bound}`" if isinstance(bound, str) else str(bound)
