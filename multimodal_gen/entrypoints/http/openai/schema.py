"""Request bodies of the image routes: OpenAI's fields, plus our own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.step_cache import FEWEST_EVALUATIONS, QUALITIES, Quality
from multimodal_gen.entrypoints.http.openai.picture_fields import PictureSource
from multimodal_gen.entrypoints.http.openai.sampling_fields import SamplingFields
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning

MAX_IMAGES = 10

OutputCount = Annotated[int, Field(ge=1, le=MAX_IMAGES)]
Delivery = Literal["b64_json", "url", "file"]
_LINKING_MODELS = ("dall-e-2", "dall-e-3")
"""Names for which OpenAI's default is a link: clients of these models only read links."""
_OfOpenAI = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


def _is_offered(value: object) -> object:
    if value is not None:
        raise PydanticCustomError("not_offered", "is not supported; leave it out")
    return value


NotOffered = Annotated[None, BeforeValidator(_is_offered)]


class ImageFields(SamplingFields):
    """Fields of all image routes."""

    prompt: str = ""
    n: OutputCount | None = None
    """Number of images."""
    num_outputs_per_prompt: OutputCount | None = None
    """Alias of n."""
    seed: int | list[int] | None = None
    """Image j has seed + j; a list sets the seed of each image."""

    output_format: Literal["png", "jpeg", "webp"] | None = None
    """Format of the files; default: png."""
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of JPEG and WebP, 0 to 100."""
    response_format: Delivery | None = None
    """url: an expiring link; file: the image itself, or a zip of several. Default: b64_json, or url
    if the model is dall-e-2 or dall-e-3."""
    background: Literal["auto", "opaque"] | None = None
    """Images are always opaque."""
    quality: Quality | _OfOpenAI | None = None
    """exact, high or fast; OpenAI's other values have no effect."""
    moderation: Literal["auto", "low"] | None = None
    """No effect on this server."""
    style: Literal["vivid", "natural"] | None = None
    """No effect on this server."""
    complexity: Literal["low", "medium", "high"] | None = None
    """No effect on this server."""
    input_fidelity: Literal["high", "low"] | None = None
    """No effect on this server."""
    frame_count: NotOffered = None
    frame_duration_ms: NotOffered = None
    svg: NotOffered = None

    stream: bool | None = None
    """Send server-sent events while the images are made."""
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    """Maximum number of previews per output in a stream, 0 to 3."""
    stream_progress: bool | None = None
    """Include step progress in a stream."""
    run_in_background: bool | None = None
    """Return a job at once; its status is at /v1/images/jobs/{id}."""

    _qualities: tuple[Quality, ...] = PrivateAttr(())
    _own_way: ClassVar = {*SamplingFields._own_way, "quality"}

    @field_validator("seed", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        for seed in value if isinstance(value, list) else [value]:
            if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | str)):
                raise PydanticCustomError("seed_type", "must be an integer or a list of integers")
        return value

    @field_validator("output_format", mode="before")
    @classmethod
    def _format(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        name = value.lower()
        return "jpeg" if name == "jpg" else name

    @field_validator("background", "output_format", mode="before")
    @classmethod
    def _can_be_made(cls, value: object) -> object:
        if isinstance(value, str) and value in _NOT_MADE:
            raise PydanticCustomError("not_offered", _NOT_MADE[value])
        return value

    def suit(self, model: ModelInfo) -> None:
        """Read it as for this model."""
        self._qualities = model.qualities

    def given(self) -> dict[str, Any]:
        quality = {"quality": self.quality} if self._has_quality else {}
        return {**super().given(), **quality}

    @property
    def _has_quality(self) -> bool:
        """True if its quality is a sampling parameter: `high` only for models that have it, since
        OpenAI's clients say `high`, too."""
        return self.quality in QUALITIES and (self.quality != "high" or "high" in self._qualities)

    def sampling_params(self) -> list[SamplingParams]:
        """One for all images, or one per image if each has its own seed.

        Raises InvalidRequest.
        """
        given = self.given()
        count = self._count()
        if isinstance(self.seed, list):
            return [SamplingParams(**given, seed=seed) for seed in self.seed]
        return [SamplingParams(**given, seed=self.seed, num_outputs_per_prompt=count)]

    @property
    def delivery(self) -> Delivery:
        """Destination of the images: as requested, or as clients of the named model expect."""
        if self.response_format is None and self.model in _LINKING_MODELS and not self.stream:
            return "url"
        return self.response_format or "b64_json"

    def check_answer(self) -> None:
        """Raise InvalidRequest for options that exclude each other."""
        if self.stream and self.run_in_background:
            raise InvalidRequest("run_in_background", True, "can't be combined with stream")
        if self.stream and self.response_format == "file":
            raise InvalidRequest("response_format", "file", "can't be combined with stream")
        if self.run_in_background and self.response_format in ("b64_json", "file"):
            allowed = "can't be set for a job, which returns links"
            raise InvalidRequest("response_format", self.response_format, allowed)

    def names_sent(self) -> dict[str, str]:
        names = {"image_path": "image", "mask_path": "mask", **super().names_sent()}
        if self.n is not None and self.num_outputs_per_prompt is None:
            names["num_outputs_per_prompt"] = "n"
        return names

    def _idle(self) -> Iterable[RequestWarning]:
        for name in ("quality", "style", "complexity", "input_fidelity", "moderation"):
            taken = name == "quality" and self._has_quality
            if getattr(self, name) not in (None, "auto") and not taken:
                yield _idle(name, "on this server")
        steps = getattr(self, "num_inference_steps", None) or FEWEST_EVALUATIONS
        if self.quality == "high" and self._has_quality and steps >= FEWEST_EVALUATIONS:
            text = "quality=high extrapolates some evaluations here; quality=exact computes all"
            yield RequestWarning("replaced", "quality", text)
        if self.output_compression is not None and self.output_format in (None, "png"):
            yield _idle("output_compression", "on png")
        if self.stream and self.response_format == "url":
            yield _idle("response_format", "on a stream: its events have the image itself")
        if self.partial_images and not self.stream:
            yield _idle("partial_images", "without stream")
        if self.stream_progress and not self.stream:
            yield _idle("stream_progress", "without stream")
        if self.previews and not self.run_in_background:
            yield _idle("previews", "without run_in_background")

    def _count(self) -> int:
        if self.n and self.num_outputs_per_prompt and self.n != self.num_outputs_per_prompt:
            allowed = f"must equal n={self.n}, which has the same meaning"
            raise InvalidRequest("num_outputs_per_prompt", self.num_outputs_per_prompt, allowed)
        count = self.n or self.num_outputs_per_prompt
        if not isinstance(self.seed, list):
            return count or 1
        if not 1 <= len(self.seed) <= MAX_IMAGES or count not in (None, len(self.seed)):
            allowed = f"must have one entry per image (n={count or '1 to 10'})"
            raise InvalidRequest("seed", self.seed, allowed)
        return len(self.seed)


class ImagesRequest(ImageFields):
    """Generate images from a prompt."""

    prompt: str
    markup: NotOffered = None

    def _about_unknown(self, name: str) -> RequestWarning:
        if name in _PICTURES:
            text = f"{name!a} has no effect here: send it to /v1/images/edits"
            return RequestWarning("unknown_field", name, text)
        return super()._about_unknown(name)


_PICTURES = ("image", "images", "image[]", "mask", "init_image", "input_image", "image_url")


def _has_no_file_id(value: object) -> object:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and each.get("file_id") is not None:
            allowed = 'file ids are not supported; send a file, or {"image_url": a data URL}'
            raise PydanticCustomError("not_offered", allowed)
    return value


PictureSources = Annotated[PictureSource | list[PictureSource], BeforeValidator(_has_no_file_id)]
SentPicture = Annotated[PictureSource, BeforeValidator(_has_no_file_id)]


class VariationsRequest(ImageFields):
    """Generate images similar to an image."""

    image: PictureSources
    markup: NotOffered = None


class EditsRequest(ImageFields):
    """Edit an image as the prompt says."""

    prompt: str
    image: PictureSources
    """One image, or a list of several for models that take them: `image[]` in forms. Also called
    images in JSON, or url (for data URLs) by clients of other servers."""
    mask: SentPicture | None = None
    """The image changes where it is transparent or, without transparency, white."""
    markup: SentPicture | None = None
    """Marks that guide the edit, on a transparent background: drawn over the image."""

    @model_validator(mode="before")
    @classmethod
    def _images(cls, given: object) -> object:
        """Take the image under other names; OpenAI's client can't be called without `image`."""
        if not isinstance(given, dict) or given.get("image") not in _NOTHING:
            return given
        others = {key: value for key, value in given.items() if key != "image"}
        name = next((name for name in _OTHER_NAMES if others.get(name) not in _NOTHING), None)
        if name is not None:
            others["image"] = others.pop(name)
        return others


_NOTHING: tuple[Any, ...] = (None, "", [])
_OTHER_NAMES = ("images", "url")
"""Names that clients give the image of an edit."""
_NOT_MADE: dict[str, Any] = {
    "transparent": "not supported: images are opaque; use auto or opaque",
    "gif": "not supported: only still images; use png, jpeg or webp",
    "svg": "not supported: only pixel formats; use png, jpeg or webp",
}
"""Values that OpenAI offers but this server does not, with the reason."""


def _idle(name: str, where: str) -> RequestWarning:
    return RequestWarning("no_effect", name, f"{name} has no effect {where}")
