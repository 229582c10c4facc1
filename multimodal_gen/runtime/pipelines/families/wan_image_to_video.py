"""Wan image-to-video, after diffusers' WanImageToVideoPipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import PIL.Image
from torch import Tensor

from multimodal_gen.configs.families.wan_image_to_video import (
    IMAGE_EXPERTS_DEFAULTS,
    LAST_FRAME_DEFAULTS,
    WAN_IMAGE_TO_VIDEO,
)
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.vaes.input_images import InputImage
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.wan import WanPipeline
from multimodal_gen.runtime.pipelines.families.wan_first_frame import GIVEN_FRAMES, ShownFirstFrame
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState

_CLIP = ("image_processor", "image_encoder")
_LAST = "last_image_path"


class WanImageToVideoPipeline(WanPipeline):
    """Wan with the first frame, and the last one, as conditioning."""

    family = WAN_IMAGE_TO_VIDEO
    tokens_beside = ("encoder_hidden_states_image",)
    widths: ClassVar = {"transformer.image_dim": ("image_encoder.hidden_size",)}
    experts_defaults = IMAGE_EXPERTS_DEFAULTS
    latent_widths = ("vae.z_dim", "vae.z_dim", "vae.scale_factor_temporal")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._first_frame = ShownFirstFrame(self.layout, self.context.dtype)

    @property
    def parameters(self) -> tuple[str, ...]:
        """A last frame needs a model whose image tokens, if it has any, are of two images."""
        parameters = (*super().parameters, _LAST)
        sees_one = _CLIP[-1] in self.components and not self.required
        return tuple(name for name in parameters if not (sees_one and name == _LAST))

    @property
    def required(self) -> tuple[str, ...]:
        return () if self._experts.config.pos_embed_seq_len is None else (_LAST,)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """The text's states and, for models with an image encoder, those of the given frames."""
        conditioning = super().condition(state, branch)
        if _CLIP[-1] not in self.components:
            return conditioning
        pictures = [state.pictures[name] for name in GIVEN_FRAMES if name in state.pictures]
        key = tuple((each.shape, hashlib.sha256(each.tobytes()).digest()) for each in pictures)
        return conditioning | self.prompts.remembered(state, key, lambda: self._see(pictures))

    def _see(self, pictures: Sequence[InputImage]) -> Conditioning:
        """States [1, S, D] of CLIP's last layer but one, of all images in a row."""
        processor, encoder = (self.components[name] for name in _CLIP)
        images = [PIL.Image.fromarray(each) for each in pictures]
        inputs = processor(images=images, return_tensors="pt")
        pixels = copied(inputs["pixel_values"], encoder.device, encoder.dtype)
        states: Tensor = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        tokens = states.flatten(0, 1).unsqueeze(0)
        return {"encoder_hidden_states_image": tokens.to(self.context.dtype)}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        of_two = _sees_tokens(checkpoint) and _positions(checkpoint) is not None
        return LAST_FRAME_DEFAULTS if of_two else super().default_params(checkpoint)

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        """A model for both tasks keeps the first frame, without conditioning on it."""
        return WanPipeline if checkpoint.options.get("expand_timesteps") else cls

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        unseen = name in _CLIP and not _sees_tokens(checkpoint)
        return unseen or super().is_absent(checkpoint, name)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if _sees_tokens(checkpoint):
            for name in _CLIP:
                checkpoint.require(name, cls.family.components[name].classes)
            _check_positions(checkpoint)


def _sees_tokens(checkpoint: Checkpoint) -> bool:
    """Depends only on the first expert, as in the reference."""
    if "transformer" not in checkpoint.components:
        return False
    return checkpoint.config("transformer").get("image_dim") is not None


def _positions(checkpoint: Checkpoint) -> object:
    return checkpoint.config("transformer").get("pos_embed_seq_len")


def _check_positions(checkpoint: Checkpoint) -> None:
    """Raise InvalidCheckpoint unless the positions, if there are any, are those of two images."""
    config, positions = checkpoint.config("image_encoder"), _positions(checkpoint)
    sides = config.get("image_size", 224) // config.get("patch_size", 32)
    if positions not in (None, 2 * (sides**2 + 1)):
        raise InvalidCheckpoint(
            f"transformer/config.json: pos_embed_seq_len={positions!r} must be "
            f"{2 * (sides**2 + 1)}, the image encoder's tokens of two images"
        )


PIPELINE = WanImageToVideoPipeline
