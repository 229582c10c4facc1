"""The bodies of the image routes: OpenAI's fields, and ours beside them."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from multimodal_gen.configs.sampling_params import LoraChoice, Priority, SamplingParams
from multimodal_gen.errors import InvalidRequest

MAX_IMAGES = 10
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)
_MAX_WARNINGS = 20

Count = Annotated[int, Field(ge=1, le=MAX_IMAGES)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class Lora(BaseModel):
    """A LoRA by the name it has in the operator's folder."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    scale: float = 1.0


class ImageFields(BaseModel):
    """What all image routes take. What is null or left out takes the model's default; unknown
    fields come back as warnings."""

    model_config = ConfigDict(strict=True, extra="allow")

    prompt: str = ""
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
    response_format: Literal["b64_json", "url", "file"] | None = None
    """url: a link that expires; file: the picture itself, or a zip of several."""
    background: Literal["auto", "opaque"] | None = None
    quality: Quality | None = None
    moderation: Literal["auto", "low"] | None = None
    style: Literal["vivid", "natural"] | None = None
    complexity: Literal["low", "medium", "high"] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    generator_device: Literal["cpu"] | None = None
    """Noise is always drawn on the CPU: the same seed gives the same picture on every device."""
    frame_count: None = None
    frame_duration_ms: None = None
    svg: None = None
    markup: None = None
    image_path: None = None
    mask_path: None = None

    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    """Pictures that a stream shows of each output while it is made, at most."""
    stream_progress: bool | None = None
    """Whether a stream tells of each step as well."""
    run_in_background: bool | None = None
    """Answer at once with a job, to be asked for at /v1/images/jobs/{id}."""

    @field_validator("seed", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        for seed in value if isinstance(value, list) else [value]:
            if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | str)):
                raise PydanticCustomError("seed_type", "must be a whole number or a list of them")
        return value

    @field_validator("background", "output_format", mode="before")
    @classmethod
    def _can_be_made(cls, value: object) -> object:
        if isinstance(value, str) and value in _NOT_MADE:
            raise PydanticCustomError("not_offered", _NOT_MADE[value])
        return value

    @field_validator("frame_count", "frame_duration_ms", "svg", "markup", mode="before")
    @classmethod
    def _is_offered(cls, value: object) -> object:
        if value is not None:
            raise PydanticCustomError("not_offered", "is not offered here; leave it out")
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

    def check_answer(self) -> None:
        """Raises InvalidRequest for ways of answering that exclude each other."""
        if self.stream and self.run_in_background:
            raise InvalidRequest("run_in_background", True, "can't be streamed as well")
        if self.stream and self.response_format in ("url", "file"):
            raise InvalidRequest("response_format", self.response_format, "a stream has b64_json")
        if self.run_in_background and self.response_format in ("b64_json", "file"):
            allowed = "a job answers with links: leave it out"
            raise InvalidRequest("response_format", self.response_format, allowed)

    def warnings(self) -> list[str]:
        """What of the request has no effect."""
        unknown = [f"{name[:60]!a} is unknown and was ignored" for name in self.model_extra or ()]
        idle = [
            f"{name} has no effect here"
            for name in ("quality", "style", "complexity", "input_fidelity")
            if getattr(self, name) not in (None, "auto")
        ]
        if self.output_compression is not None and self.output_format in (None, "png"):
            idle.append("output_compression has no effect on png")
        if self.partial_images and not self.stream:
            idle.append("partial_images has no effect without stream")
        return [*idle, *unknown][:_MAX_WARNINGS]

    def names_sent(self) -> dict[str, str]:
        """Under which names the body gave what is called otherwise inside."""
        names = {"image_path": "image", "mask_path": "mask"}
        if self.size and self.size != "auto":
            names |= {side: "size" for side in ("width", "height") if getattr(self, side) is None}
        if self.n is not None:
            names["num_outputs_per_prompt"] = "n"
        return names

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


class ImagesRequest(ImageFields):
    """Pictures of a prompt."""

    prompt: str


class PictureLink(BaseModel):
    """How a picture stands in JSON."""

    model_config = ConfigDict(strict=True, extra="forbid")

    image_url: str
    """A data URL."""


Picture = bytes | str | PictureLink
"""A file of a form; in JSON a data URL or base64."""


class VariationsRequest(ImageFields):
    """Pictures like a picture."""

    image: Picture | list[Picture]


class EditsRequest(ImageFields):
    """Pictures made of a picture, as the prompt says."""

    prompt: str
    image: Picture | list[Picture]
    mask: Picture | None = None
    """Transparent where the picture is to change; without any transparency: white there."""


_NOT_MADE: dict[str, Any] = {
    "transparent": "the models here make opaque pictures: auto or opaque",
    "gif": "is an animation, and the models here make still pictures: png, jpeg or webp",
    "svg": "the models here make pixels: png, jpeg or webp",
}
"""What OpenAI offers and this does not, and why."""
_SHARED = ImageFields.model_fields.keys() & {field.name for field in fields(SamplingParams)} - {
    "seed",
    "num_outputs_per_prompt",
    "lora",
}
"""The fields that are passed on as they are."""
