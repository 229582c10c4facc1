"""The sampling parameters as fields of an HTTP body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, Field, create_model

from multimodal_gen.configs.parameters import NUMBERS, SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS

NESTED = ("extra_body", "extra_args", "extra_params", "video_params", "diffusers_kwargs")
"""Objects whose fields clients mean as fields of the body: the openai package merges extra_body by
itself, other clients send it, and the others are of other servers."""


def types_in(annotation: Any) -> set[Any]:
    """Return the types that an annotation consists of."""
    inner = (types_in(each) for each in get_args(annotation))
    return {annotation}.union(*inner)


def describe(schema: dict[str, Any]) -> None:
    """Add the help of sampling parameters to the fields of a JSON schema without description."""
    for name, part in schema.get("properties", {}).items():
        parameter = PARAMETERS.get(name)
        if parameter is not None and not parameter.spec.local:
            part.setdefault("description", parameter.summary)


def _field(parameter: SamplingParameter) -> tuple[Any, None]:
    """Return type and default. Null means the default; a local file can only be null."""
    if parameter.spec.local:
        return None, None
    kind: Any = parameter.kind
    if kind in (int, float):
        # Documented only: SamplingParams checks the range, with the same errors for all clients.
        annotated: Any = Annotated
        kind = annotated[kind, Field(json_schema_extra=_bounds(parameter))]
    return (list[float] if kind == NUMBERS else kind) | None, None


def _bounds(parameter: SamplingParameter) -> dict[str, Any]:
    """Return the range as JSON schema keywords."""
    low, high = parameter.constant_bounds
    lowest = "exclusiveMinimum" if parameter.spec.exclusive else "minimum"
    return {key: value for key, value in ((lowest, low), ("maximum", high)) if value is not None}


if TYPE_CHECKING:

    class ParameterFields(BaseModel):
        """The fields that the code of request bodies reads by name."""

        width: int | None
        height: int | None
        num_frames: int | None
        fps: int | None

else:
    ParameterFields = create_model(
        "ParameterFields",
        **{name: _field(parameter) for name, parameter in PARAMETERS.items()},
    )
