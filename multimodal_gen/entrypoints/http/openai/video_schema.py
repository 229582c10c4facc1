"""Request bodies of the video routes: OpenAI's fields, plus our own."""

from __future__ import annotations

import math
from itertools import chain
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.bodies.json_body import maybe_json
from multimodal_gen.entrypoints.http.openai.picture_fields import PictureSource
from multimodal_gen.entrypoints.http.openai.sampling_fields import SamplingFields
from multimodal_gen.entrypoints.http.openai.schema import (
    PictureSources,
    SentPicture,
)
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo

MAX_SECONDS = 86400
One = Annotated[int, Field(ge=1, le=1)]


class RemixRequest(SamplingFields):
    """Repeat another video, with the changes in the body."""

    seconds: str | int | float | None = None
    """Duration in seconds, rounded to the nearest length that the model supports."""
    seed: int | None = None
    n: One | None = None
    num_outputs_per_prompt: One | None = None

    def sampling_params(self, model: ModelInfo, base: SamplingParams) -> SamplingParams:
        """Return `base` with the values of the body. Raises InvalidRequest."""
        given = self.given()
        if self.seed is not None:
            given["seed"] = self.seed
        if self.seconds is not None:
            fps = self.fps or base.fps or model.defaults.fps
            given["num_frames"] = self._num_frames(model, fps)
        return base.updated(**given)

    def names_sent(self) -> dict[str, str]:
        names = {"image_path": "input_reference", **super().names_sent()}
        if self.num_frames is None and self.seconds is not None:
            names["num_frames"] = "seconds"
        return names

    def _num_frames(self, model: ModelInfo, fps: int | None) -> int:
        seconds = _number(self.seconds)
        if fps is None:
            raise InvalidRequest("seconds", self.seconds, "requires fps")
        frames = frames_of(seconds, fps, model.frame_multiple, model.limits.min_frames)
        if frames > model.limits.max_frames:
            longest = f"{model.limits.max_frames / fps:g} seconds at fps={fps}"
            raise InvalidRequest("seconds", self.seconds, f"{model.name} allows at most {longest}")
        if self.num_frames not in (None, frames):
            text = f"num_frames={self.num_frames} overrules seconds={self.seconds}"
            self._overrule("seconds", text)
        return self.num_frames or frames


class VideosRequest(RemixRequest):
    """Make a video from a prompt, and from images or a video if the model supports it."""

    input_reference: PictureSources | None = None
    """First frame of the video, or images to refer to (`input_reference[]` in forms): a file, or
    `{"image_url": a data URL}` in JSON."""
    image: PictureSources | None = None
    """Further images, after `input_reference`; `image[]` in forms."""
    last_image: SentPicture | None = None
    """Last frame of the video."""
    video: SentPicture | None = None
    """Video to start from or to follow: a file (MP4, MOV, WebM, MKV, AVI or GIF) or a data URL."""
    mask: SentPicture | None = None
    """Part of the video to replace, in all its frames: white, or transparent, is made anew."""

    @model_validator(mode="before")
    @classmethod
    def _other_name(cls, given: object) -> object:
        """Take the image under the names that vLLM-Omni and SGLang give it."""
        if not isinstance(given, dict) or given.get("input_reference") is not None:
            return given
        for name in ("image_reference", "reference_url"):
            if given.get(name) is not None:
                others = {key: value for key, value in given.items() if key != name}
                return {**others, "input_reference": given[name]}
        return given

    @field_validator("input_reference", "image", "last_image", "video", "mask", mode="before")
    @classmethod
    def _are_sent(cls, value: object) -> object:
        if isinstance(value, list):
            return [_sent(each) for each in value]
        return _sent(value)

    def images(self) -> list[PictureSource]:
        """The input images, in their order."""
        both = (self.input_reference, self.image)
        given = (each if isinstance(each, list) else [each] for each in both if each is not None)
        return list(chain.from_iterable(given))

    def names_sent(self) -> dict[str, str]:
        only_images = self.input_reference is None and self.image is not None
        others = {"last_image_path": "last_image", "video_path": "video", "mask_path": "mask"}
        return super().names_sent() | others | ({"image_path": "image"} if only_images else {})


def _sent(value: object) -> object:
    if isinstance(value, str) and value.startswith("{"):  # an object in a form
        value = maybe_json(value)
    if not isinstance(value, dict):
        return value
    if value.get("image_url") is None:
        allowed = 'must be a file, or {"image_url": a data URL}: file ids are not supported'
        raise PydanticCustomError("not_offered", allowed)
    return value["image_url"]


def frames_of(seconds: float, fps: int, multiple: int, least: int = 1) -> int:
    """Number of frames, `least` more than a multiple of `multiple`, nearest to `seconds`."""
    return least + multiple * max(0, math.floor((seconds * fps - least) / multiple + 0.5))


def _number(seconds: object) -> float:
    try:
        number = float(str(seconds))
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_SECONDS:
        raise InvalidRequest("seconds", seconds, "must be a number of seconds, such as 4")
    return number
