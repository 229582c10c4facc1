"""The body of `POST /v1/images/generations`: OpenAI's fields, and ours beside them."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from multimodal_gen.configs.sampling_params import LoraChoice, Priority, SamplingParams
from multimodal_gen.errors import InvalidRequest

MAX_IMAGES = 10
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)
_MAX_WARNINGS = 20

Count = Annotated[int, Field(ge=1, le=MAX_IMAGES)]


class Lora(BaseModel):
    """A LoRA by the name it has in the operator's folder."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    scale: float = 1.0


class ImagesRequest(BaseModel):
    """What is null or left out takes the model's default; unknown fields come back as warnings."""

    model_config = ConfigDict(strict=True, extra="allow")

    prompt: str
    model: str | None = None
    """Any name is taken for the one model that is served."""
    n: Count | None = None
    num_outputs_per_prompt: Count | None = None
    """The same as n."""
    size: str | None = None
    """auto, or WIDTHxHEIGHT."""
    width: int | None = None
    height: int | None = None
    seed: int | list[int] | None = None
    """Image j has seed + j; a list gives each image its own."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    flow_shift: float | None = None
    max_sequence_length: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    strength: float | None = None
    lora: list[Lora] | None = None
    priority: Priority | None = None
    deadline_s: float | None = None

    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of JPEG and WebP."""
    response_format: Literal["b64_json"] | None = None
    background: Literal["auto", "opaque"] | None = None
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = (
        None
    )
    moderation: Literal["auto", "low"] | None = None
    style: Literal["vivid", "natural"] | None = None
    complexity: Literal["low", "medium", "high"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    generator_device: Literal["cpu"] | None = None
    """Noise is always drawn on the CPU: the same seed gives the same picture on every device."""
    stream: bool | None = None
    partial_images: int | None = None
    image_path: None = None
    mask_path: None = None

    @field_validator("seed", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        for seed in value if isinstance(value, list) else [value]:
            if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
                raise PydanticCustomError("seed_type", "must be a whole number or a list of them")
        return value

    @field_validator("stream", "partial_images")
    @classmethod
    def _not_offered(cls, value: int | None) -> int | None:
        if value:
            raise PydanticCustomError("not_offered", "streaming is not offered; leave it out")
        return value

    def sampling_params(self) -> list[SamplingParams]:
        """One for all images, or one for each where every image has its own seed.

        Raises InvalidRequest.
        """
        given = {name: getattr(self, name) for name in _SHARED if getattr(self, name) is not None}
        given |= self._sides()
        given["lora"] = tuple(LoraChoice(lora.name, lora.scale) for lora in self.lora or ())
        count = self._count()
        if isinstance(self.seed, list):
            return [SamplingParams(**given, seed=seed) for seed in self.seed]
        return [SamplingParams(**given, seed=self.seed, num_outputs_per_prompt=count)]

    def warnings(self) -> list[str]:
        """What of the request has no effect."""
        unknown = [f"{name[:60]!a} is unknown and was ignored" for name in self.model_extra or ()]
        idle = [
            f"{name} has no effect here"
            for name in ("quality", "style", "complexity")
            if getattr(self, name) not in (None, "auto")
        ]
        if self.output_compression is not None and self.output_format in (None, "png"):
            idle.append("output_compression has no effect on png")
        return [*idle, *unknown][:_MAX_WARNINGS]

    def _count(self) -> int:
        if self.n and self.num_outputs_per_prompt and self.n != self.num_outputs_per_prompt:
            allowed = f"must equal n={self.n}, which means the same"
            raise InvalidRequest("num_outputs_per_prompt", self.num_outputs_per_prompt, allowed)
        count = self.n or self.num_outputs_per_prompt
        if not isinstance(self.seed, list):
            return count or 1
        if not 1 <= len(self.seed) <= MAX_IMAGES or count not in (None, len(self.seed)):
            allowed = f"must have as many entries as there are images (n={count or '1 to 10'})"
            raise InvalidRequest("seed", self.seed, allowed)
        return len(self.seed)

    def _sides(self) -> dict[str, int]:
        if self.size is None or self.size == "auto":
            return {}
        match = _SIZE.fullmatch(self.size)
        if match is None:
            raise InvalidRequest("size", self.size, "must be auto or WIDTHxHEIGHT, as in 1024x1024")
        sides = {"width": int(match[1]), "height": int(match[2])}
        for name, side in sides.items():
            if getattr(self, name) not in (None, side):
                raise InvalidRequest(name, getattr(self, name), f"size={self.size} says otherwise")
        return sides


_SHARED = ImagesRequest.model_fields.keys() & {field.name for field in fields(SamplingParams)} - {
    "seed",
    "num_outputs_per_prompt",
    "lora",
}
"""The fields that are passed on as they are."""
