"""The sampling parameters as fields of an HTTP body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, create_model

from multimodal_gen.configs.parameters import SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS


def describe(schema: dict[str, Any]) -> None:
    """Put the help of sampling parameters into a JSON schema whose fields lack a description."""
    for name, part in schema.get("properties", {}).items():
        parameter = PARAMETERS.get(name)
        if parameter is not None and not parameter.spec.local:
            part.setdefault("description", parameter.summary)


def _field(parameter: SamplingParameter) -> tuple[Any, None]:
    """Type and default. Null takes the default, and a local file can't be anything else."""
    if parameter.spec.local:
        return None, None
    kind: Any = parameter.kind
    if kind in (int, float):
        # Stated only: SamplingParams is checked, and its errors are the same for everybody.
        annotated: Any = Annotated
        kind = annotated[kind, Field(json_schema_extra=_bounds(parameter))]
    return kind | None, None


def _bounds(parameter: SamplingParameter) -> dict[str, Any]:
    """The range in words of JSON schema."""
    low, high = parameter.constant_bounds
    lowest = "exclusiveMinimum" if parameter.spec.exclusive else "minimum"
    return {key: value for key, value in ((lowest, low), ("maximum", high)) if value is not None}


if TYPE_CHECKING:

    class ParameterFields(BaseModel):
        """Those that the bodies' own code reads by name."""

        width: int | None
        height: int | None
        num_frames: int | None
        fps: int | None

else:
    ParameterFields = create_model(
        "ParameterFields",
        **{name: _field(parameter) for name, parameter in PARAMETERS.items()},
    )
