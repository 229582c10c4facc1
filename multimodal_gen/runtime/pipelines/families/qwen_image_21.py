"""Qwen-Image 2.1, after diffusers' QwenImage21Pipeline: from a text, or with input images too."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.qwen_image_21 import QWEN_IMAGE_21
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import PictureProcessor
from multimodal_gen.runtime.models.dits.qwen_image_21.config import QwenImage21Config
from multimodal_gen.runtime.models.dits.qwen_image_21.keys import qwen_image_21_key_map
from multimodal_gen.runtime.models.dits.qwen_image_21.model import QwenImage21Transformer, Segment
from multimodal_gen.runtime.models.encoders.qwen import IMAGE_TOKEN
from multimodal_gen.runtime.models.encoders.qwen3_vl import Qwen3VLEncoder, without_last_norm
from multimodal_gen.runtime.models.vaes.input_images import InputImage, resized
from multimodal_gen.runtime.models.vaes.qwen_image_21 import QwenImage21VAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.qwen_image import chat
from multimodal_gen.runtime.pipelines.families.qwen_image_edit import fitted
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.guidance import TrueCfgGuidance
from multimodal_gen.runtime.pipelines.guiding.formulas import beyond_negative
from multimodal_gen.runtime.pipelines.latents.tokens import LatentTokens
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.prompts import text_of
from multimodal_gen.runtime.pipelines.shown_picture import ShownPicture
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows, join_padded, text_bucket

_SYSTEM = "Comprehend and analyze the provided prompt."
_DROPPED = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n"
_SHOWN = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
_STATES = "encoder_hidden_states"
_BEFORE = "before_{}"
_SLOT = 2  # latents per side of what the text encoder has one state for
PICTURE_AREA = 1024 * 1024  # pixels of an input image, for text encoder and VAE


class QwenImage21Pipeline(ComposedPipeline):
    """The prefix of an output in its sequence goes through the transformer once, before the first
    evaluation: see `precompute`."""

    family = QWEN_IMAGE_21
    tokens_beside = ("picture",)
    native = NativeTransformer(QwenImage21Config, QwenImage21Transformer, qwen_image_21_key_map)
    vae_class = QwenImage21VAE
    widths: ClassVar = {"transformer.in_channels": ("vae.z_dim",)}

    def __init__(self, *args: Any, sigmas: Sequence[float]) -> None:
        super().__init__(*args)
        self._sigmas = sigmas
        processor: PictureProcessor = self.components["processor"] or PictureProcessor(None, None)
        self._encoder = Qwen3VLEncoder(
            processor.tokenizer, self.components["text_encoder"], processor.image_processor
        )
        self._transformer: QwenImage21Transformer = self.components["transformer"]
        self._encoder.require((), self._transformer.config.context_in_dim)
        self._denoiser = self.make_denoiser("transformer")
        self.layout = LatentTokens(self.vae, self.context)
        self.guidance = TrueCfgGuidance(beyond_negative)
        self._shown = ShownPicture(self.layout, self._fitted)

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"sigmas": tuple(checkpoint.options.get("sample_sigmas") or ())}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        steps = len(checkpoint.options.get("sample_sigmas") or ())
        defaults = cls.family.defaults
        return msgspec.structs.replace(defaults, num_inference_steps=steps) if steps else defaults

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        """The states before the text encoder's last norm are the conditioning."""
        loaded = super().load_component(checkpoint, name, context)
        return without_last_norm(loaded) if name == "text_encoder" else loaded

    @property
    def size_multiple(self) -> int:
        return self.family.size_multiple

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text, pictures = text_of(state.params, branch) or " ", images_of(state.pictures)
        if IMAGE_TOKEN in text:
            field = "prompt" if branch == "positive" else "negative_prompt"
            raise InvalidRequest(field, text, f"must not contain {IMAGE_TOKEN}")
        seen = ((each.shape, hashlib.sha256(each.tobytes()).digest()) for each in pictures)
        key = (text, *seen)
        return self.prompts.remembered(state, key, lambda: self._encode(text, pictures))

    def _encode(self, text: str, pictures: Sequence[InputImage]) -> Conditioning:
        """The states of the text before each image, and of the one after the last. Where the
        images are, the latents of the VAE take the states' place."""
        shown = " ".join(f"<image{i}>{_SHOWN}" for i, _ in enumerate(pictures, 1))
        asked, sizes = chat(_SYSTEM, f"{shown}{text}"), [self._fitted(each) for each in pictures]
        fitting = [resized(each, *size) for each, size in zip(pictures, sizes, strict=True)]
        encode = self._encoder
        states = encode.with_pictures(asked, fitting) if pictures else encode(asked)
        states = states.to(self.context.dtype)
        slot = (_SLOT * self.vae.pixels_per_latent) ** 2  # pixels of an image that a state is for
        parts: list[Tensor] = []
        end = len(encode.tokens(_DROPPED))
        for i, part in enumerate(asked.removeprefix(_DROPPED).split(IMAGE_TOKEN)):
            start, end = end, end + len(encode.tokens(part))
            parts.append(states[:, start:end])
            end += math.prod(sizes[i]) // slot if i < len(sizes) else 0
        before = {_BEFORE.format(i): part for i, part in enumerate(parts[:-1])}
        return {_STATES: parts[-1], **before}

    @staticmethod
    def _fitted(picture: InputImage) -> tuple[int, int]:
        """Height and width at which an image is shown to text encoder and transformer."""
        return fitted(picture, PICTURE_AREA)

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        self._shown.prepare(state)

    def precompute(self, state: RequestState) -> None:
        """Keys and values of the prefix in all blocks, and the output's positions behind it."""
        grids = self._grids(state)
        for told in state.conditioning.values():
            if "prefix" in told:
                continue
            texts = self._texts(state, told)
            lengths = [*map(_length, texts)]
            images = zip(lengths, grids, strict=False)
            segments: list[Segment] = [*(each for pair in images for each in pair), lengths[-1]]
            before, behind = self._transformer.rotary(segments, self._output(state))
            tensors = {
                "timestep": before.new_zeros(1),
                "rotary": before,
                _STATES: torch.cat(texts, dim=1),
                "pictures": told.get("picture"),
            }
            rows = self.loras.rows([state.loras])
            told["prefix"] = self._denoiser(tensors, {"segments": segments}, lora=rows)
            told["rotary"] = behind[None]

    def _texts(self, state: RequestState, told: Conditioning) -> list[Tensor]:
        """States of the text before each input image, and behind the last."""
        before = [told[_BEFORE.format(i)] for i, _ in enumerate(self._grids(state))]
        return [*before, told[_STATES]]

    def _grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens of input images, down and across."""
        return self._shown.grids(state)

    def _output(self, state: RequestState) -> Grid:
        down, across = self.layout.grid(state.params)
        return down, across

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        used = [{name: branch[name] for name in ("prefix", "rotary")} for branch in branches]
        return join_padded(used, ("prefix",), to_bucket=self.runners.captures)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{self._output(state)} after {self._grids(state)} and {self.text_tokens(state)}"

    def text_tokens(self, state: RequestState) -> int:
        """Tokens of the text, also of what precedes the input images."""
        told = state.conditioning.values()
        return text_bucket(max(sum(map(_length, self._texts(state, each))) for each in told))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        """A distilled checkpoint's own noise levels are for its own number of steps."""
        mu = linear_shift(self.scheduler_config, self.layout.tokens(params))
        own = len(self._sigmas) == params.num_inference_steps
        sigmas = list(self._sigmas) if own else falling_sigmas(params)
        return {"sigmas": sigmas, "mu": mu, "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        tensors = {
            "hidden_states": rows.latents,
            "timestep": rows.timesteps.to(rows.latents.dtype) / 1000,
            **rows.conditioning,
        }
        return self._denoiser(tensors, lora=rows.lora)


def _length(text: Tensor) -> int:
    return text.shape[1]


PIPELINE = QwenImage21Pipeline
