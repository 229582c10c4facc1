"""Qwen-Image-Edit, after diffusers' QwenImageEditPipeline, QwenImageEditPlusPipeline and
QwenImageEditInpaintPipeline."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from multimodal_gen.configs.families.qwen_image_edit import QWEN_IMAGE_EDIT
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Limits
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import PictureProcessor
from multimodal_gen.runtime.models.encoders.qwen import IMAGE_TOKEN, QwenEncoder
from multimodal_gen.runtime.models.vaes.input_images import InputImage, resized
from multimodal_gen.runtime.pipelines.families.qwen_image import QwenImagePipeline, chat
from multimodal_gen.runtime.pipelines.prompts import text_of
from multimodal_gen.runtime.pipelines.shown_picture import ShownPicture
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState

_SYSTEM = (
    "Describe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. "
    "Generate a new image that meets the user's requirements while maintaining consistency with "
    "the original input where appropriate."
)
_SHOWN = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
_DROPPED = 64  # tokens of the template before image and prompt
PICTURE_AREA = 1024 * 1024  # pixels of the image for the VAE
SEEN_BY_PLUS = 384 * 384  # and for the text encoder of QwenImageEditPlus
_STEP = 32
_LONGEST_SHAPE = 200  # maximum aspect ratio that transformers' Qwen2VL supports


class QwenImageEditPipeline(QwenImagePipeline):
    """The text encoder gets the input images, and their latents follow the denoised ones."""

    family = QWEN_IMAGE_EDIT
    supports_control = False
    tokens_beside = ("picture",)

    def __init__(self, *args: Any, plus: bool) -> None:
        super().__init__(*args)
        self._plus = plus
        self._shown = ShownPicture(self.layout, lambda picture: fitted(picture, PICTURE_AREA))
        drawn = partial(self._shown.inpainted, drawn=True)
        self.start = PictureStart(self.layout, flow_model_start, picture=drawn)

    @property
    def limits(self) -> Limits:
        """The first release sees one image."""
        limits = self.family.limits
        return limits if self._plus else msgspec.structs.replace(limits, max_images=1)

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"plus": checkpoint.pipeline_class == "QwenImageEditPlusPipeline"}

    def make_encoder(self) -> QwenEncoder:
        processor: PictureProcessor = self.components["processor"] or PictureProcessor(None, None)
        text_encoder = self.components["text_encoder"]
        return QwenEncoder(processor.tokenizer, text_encoder, processor.image_processor)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text, pictures = text_of(state.params, branch), images_of(state.pictures)
        if IMAGE_TOKEN in text:
            field = "prompt" if branch == "positive" else "negative_prompt"
            raise InvalidRequest(field, text, f"must not contain {IMAGE_TOKEN}")
        seen = ((each.shape, hashlib.sha256(each.tobytes()).digest()) for each in pictures)
        key = (text, *seen)
        return self.prompts.remembered(state, key, lambda: self._encode_with(text, pictures))

    def _encode_with(self, text: str, pictures: Sequence[InputImage]) -> Conditioning:
        area = SEEN_BY_PLUS if self._plus else PICTURE_AREA
        labels = [f"Picture {i}: " if self._plus else "" for i, _ in enumerate(pictures, 1)]
        shown = "".join(f"{label}{_SHOWN}" for label in labels)
        fitting = [resized(each, *fitted(each, area)) for each in pictures]
        states = self._encoder.with_pictures(chat(_SYSTEM, f"{shown}{text}"), fitting)
        return {"encoder_hidden_states": states[:, _DROPPED:].to(self.context.dtype)}

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        self._shown.prepare(state)

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        return (*super().grids(state), *self._shown.grids(state))


def fitted(picture: InputImage, area: int) -> tuple[int, int]:
    """Height and width of about `area` pixels with the image's aspect ratio, multiples of 32.

    Raises InvalidRequest for an image that is too narrow.
    """
    height, width = picture.shape[:2]
    across = math.sqrt(area * width / height)
    fitting = round(across * height / width / _STEP) * _STEP, round(across / _STEP) * _STEP
    if max(fitting) > _LONGEST_SHAPE * min(fitting):
        allowed = (
            f"is too narrow: the longer side may be at most about {_LONGEST_SHAPE} times the other"
        )
        raise InvalidRequest("image_path", f"{width}x{height}", allowed)
    return fitting


PIPELINE = QwenImageEditPipeline
