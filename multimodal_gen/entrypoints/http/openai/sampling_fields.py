"""Fields that the bodies of image and video requests share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import PARAMETERS
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.entrypoints.http.openai.parameter_fields import (
    NESTED,
    ParameterFields,
    describe,
    types_in,
)
from multimodal_gen.entrypoints.http.openai.picture_fields import PictureSource
from multimodal_gen.entrypoints.http.transport.hints import unknown
from multimodal_gen.entrypoints.http.transport.warnings import at_most
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.messages.request_warning import RequestWarning

_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)
_MAX_WARNINGS = 20


class LoraField(BaseModel):
    """A LoRA, by its name in the operator's folder."""

    model_config = ConfigDict(title="Lora", strict=True, extra="forbid")

    name: str
    scale: float = 1.0
    target: str | None = None
    """Component of the model that it applies to, one of the model's `lora_targets`."""
    start: float = 0.0
    """Part of the steps that are over when it begins to apply, 0 to 1."""
    stop: float = 1.0
    """Part of the steps that are over when it ceases to."""


class ControlField(BaseModel):
    """A control, by its name in the operator's folder, and the image that steers it."""

    model_config = ConfigDict(title="Control", strict=True, extra="forbid")

    name: str
    image: PictureSource
    scale: float = 1.0
    start: float = 0.0
    """Part of the steps that are over when it begins to apply, 0 to 1."""
    stop: float = 1.0
    """Part of the steps that are over when it ceases to."""
    mode: str | None = None
    """Kind of image, for a control that takes several: canny, depth, …"""


class UpscaleField(BaseModel):
    """The result enlarged, and a second pass from it."""

    model_config = ConfigDict(title="Upscale", strict=True, extra="forbid")

    factor: float
    """Of width and height, up to 8."""
    strength: float | None = None
    """How much of the enlarged image is replaced; by default 0.4, and with a model there is no
    second pass."""
    steps: int | None = None
    """Steps of the second pass; by default those of the first."""
    model: str | None = None
    """Name of a model that enlarges; by default Lanczos does."""


class SamplingFields(ParameterFields):
    """Null and omitted fields take the model's default; unknown fields are returned as warnings."""

    model_config = ConfigDict(
        strict=True, extra="allow", json_schema_extra=describe, use_attribute_docstrings=True
    )

    prompt: str
    model: str | None = None
    """One of /v1/models; default: the first of them. A server of one model accepts any name."""
    size: str | None = None
    """`auto`, or WIDTHxHEIGHT in pixels."""
    lora: list[LoraField] | None = None
    """LoRAs of the operator's folder, by name, each with a scale."""
    control: list[ControlField] | None = None
    """ControlNets and other controls of the operator's folder, each with an image."""
    upscale: UpscaleField | None = None
    """Enlarge the result, with a second pass or by a model."""

    previews: bool | None = None
    """Send previews to clients that follow the job."""
    user: str | None = None
    """Returned as safety_identifier."""
    safety_identifier: str | None = None
    """Returned as it is."""
    generator_device: Literal["cpu"] | None = None
    """Noise is always drawn on the CPU: a seed gives the same image on every device."""

    _overruled: list[RequestWarning] = PrivateAttr(default_factory=list)
    """Warnings about fields that others with the same meaning overrule."""
    _own_way: ClassVar = {"seed", "num_outputs_per_prompt", "lora", "control", "upscale"}
    """Parameters that subclasses convert themselves."""

    @model_validator(mode="before")
    @classmethod
    def _tolerated(cls, given: object) -> object:
        """Take what other servers take: 20.0 for an integer, as JavaScript has one type of number,
        and a single LoRA or control without a list."""
        if not isinstance(given, dict):
            return given
        whole = {
            name: int(value)
            for name, value in given.items()
            if isinstance(value, float) and value.is_integer() and _is_integer(cls, name)
        }
        names = ("lora", "control")
        single = {name: [given[name]] for name in names if isinstance(given.get(name), dict)}
        return {**given, **whole, **single}

    @model_validator(mode="after")
    def _forget_extras(self) -> Self:
        """Only the names of unknown fields are of use; their values may be large."""
        for name in self.model_extra or ():
            setattr(self, name, None)
        return self

    def given(self) -> dict[str, Any]:
        """Return the sampling parameters that the body sets, except seeds and number of outputs.

        Raises InvalidRequest.
        """
        known = PARAMETERS.keys() - self._own_way
        given = {name: getattr(self, name) for name in known if getattr(self, name) is not None}
        given |= self._sides()
        if self.lora:
            given["lora"] = tuple(LoraChoice(**lora.model_dump()) for lora in self.lora)
        if self.control:
            given["control"] = tuple(
                ControlChoice(**control.model_dump(exclude={"image"})) for control in self.control
            )
        if self.upscale is not None:
            given["upscale"] = UpscaleChoice.of(self.upscale.model_dump())
        return given

    def warnings(self) -> list[RequestWarning]:
        """Return a warning per field that has no effect."""
        extras = map(self._about_unknown, self.model_extra or ())
        return at_most(_MAX_WARNINGS, [*self._overruled, *self._idle(), *extras])

    def _about_unknown(self, name: str) -> RequestWarning:
        if name in NESTED:
            text = f"{name}: its fields were taken as fields of the body itself"
            return RequestWarning("nested_fields", name, text)
        fields = type(self).model_fields.items()
        known = [known for known, field in fields if field.annotation is not type(None)]
        return RequestWarning("unknown_field", name[:60], unknown(name, known))

    def names_sent(self) -> dict[str, str]:
        """Map parameters to the names under which the body gave them, where these differ."""
        if not self.size or self.size == "auto":
            return {}
        return {side: "size" for side in ("width", "height") if getattr(self, side) is None}

    def name_as_sent(self, error: MultimodalGenError) -> None:
        """Change the error to name the field that the body used."""
        field = error.field or ""
        if (sent := self.names_sent().get(field)) is None:
            return
        if field.endswith("_path"):  # an image, which has no path in a request
            error.message = error.message.replace(field, sent, 1)
        elif sent == "size" and error.message.startswith(f"{field}="):
            error.message = f"size={self.size}: {error.message.partition(': ')[2]}"
        else:
            error.message = f"{sent}: {error.message}"
        error.field = sent

    def _idle(self) -> Iterable[RequestWarning]:
        """Return a warning per known field that is set without effect."""
        return ()

    def _sides(self) -> dict[str, int]:
        if self.size in (None, "", "auto"):
            return {}
        match = _SIZE.fullmatch(self.size or "")
        if match is None:
            raise InvalidRequest("size", self.size, "must be auto or WIDTHxHEIGHT, as in 1024x1024")
        sides = {"width": int(match[1]), "height": int(match[2])}
        explicit = {name: getattr(self, name) for name in sides if getattr(self, name) is not None}
        for name, side in explicit.items():
            if side != sides[name]:
                self._overrule("size", f"{name}={side} overrules size={self.size}")
        return sides | explicit

    def _overrule(self, field: str, text: str) -> None:
        warning = RequestWarning("overruled", field, text)
        if warning not in self._overruled:
            self._overruled.append(warning)


def _is_integer(model: type[BaseModel], name: str) -> bool:
    """True if a field takes integers but no other numbers."""
    field = model.model_fields.get(name)
    kinds = types_in(field.annotation) if field is not None else set()
    return int in kinds and float not in kinds
