"""Z-Image, after diffusers' ZImagePipeline and those for image-to-image and inpainting."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from multimodal_gen.configs.families.z_image import BASE_DEFAULTS, Z_IMAGE
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.z_image.config import PATCH, ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.keys import z_image_key_map
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer, padded
from multimodal_gen.runtime.models.encoders.qwen3 import Qwen3Encoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import linear_shift
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.guiding.formulas import beyond_positive
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import RefinedTexts, Rows, join_padded, text_bucket

_STATES = "encoder_hidden_states"
_TIMESTEPS = 1000
_TURBO_SHIFT = 3.0


class ZImagePipeline(ComposedPipeline):
    """Latents are those of the VAE, [1, C, h, w], float32 for any dtype of the model."""

    family = Z_IMAGE
    native = NativeTransformer(ZImageConfig, ZImageTransformer, z_image_key_map)
    vae_class = ImageVAE
    supports_control = True
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.cap_feat_dim": ("text_encoder.hidden_size",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        tokenizer, encoder = self.components["tokenizer"], self.components["text_encoder"]
        self._qwen = Qwen3Encoder(tokenizer, encoder, thinking=True, padded=False)
        self.reads.in_one = {"text_encoder": self._qwen}
        self._transformer: ZImageTransformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        self.layout = LatentLayout(
            self.vae, self.context, dtype=torch.float32, patch=(PATCH, PATCH)
        )
        self._texts = RefinedTexts()
        self.guidance = ClassifierFreeGuidance(beyond_positive, above=0, float32=True)
        self.start = PictureStart(self.layout, flow_model_start)
        self._tables: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        """Rotary tables of batches whose texts differ in length, by those lengths."""

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """The two published models only differ in the schedule's shift."""
        turbo = checkpoint.scheduler_config().get("shift") == _TURBO_SHIFT
        return cls.family.defaults if turbo else BASE_DEFAULTS

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """The states before Qwen3's last layer, without padding."""
        (states,) = self._qwen.states(text, length, (-2,))
        return {_STATES: states.to(self.context.dtype)}

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        return join_padded(branches, (_STATES,), to_bucket=self.runners.captures)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        _, latents = state.running()
        return f"{tuple(latents.shape)} text {self.text_tokens(state)}"

    def latent_tokens(self, state: RequestState) -> int:
        return padded(super().latent_tokens(state))

    def text_tokens(self, state: RequestState) -> int:
        return padded(text_bucket(super().text_tokens(state)))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        steps = params.num_inference_steps
        assert steps is not None
        sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
        return {
            "sigmas": sigmas,
            "mu": linear_shift(self.scheduler_config, self.layout.tokens(params)),
        }

    def predict(self, rows: Rows) -> Tensor:
        told, lora, model = dict(rows.conditioning), rows.lora, self._transformer
        states, lengths = told.pop(_STATES), told.get("lengths")
        rotary = self._rotary(rows, states.shape[1], lengths)
        text = self._texts.of(states, lora, lambda: model.refined(states, rotary, lengths, lora))
        static = {"text_tokens": states.shape[1]}
        tensors = {
            "text": text,
            "latents": rows.latents.to(self.context.dtype),
            "timestep": (_TIMESTEPS - rows.timesteps) / _TIMESTEPS,
            "rotary": rotary,
            **told,
        }
        with rows.controlled(tensors, static) as controlled:
            # The model's velocity is from noise to image.
            return -self._denoiser(controlled, static, lora)

    def _rotary(self, rows: Rows, text: int, lengths: Tensor | None) -> Tensor:
        """The transformer's table, made once for the lengths of a batch."""
        sizes = rows.latents.shape[2:]
        if lengths is None:
            return self._transformer.rotary(sizes, text, rows=len(rows.latents))
        if (table := self._tables.get(lengths)) is None:
            table = self._tables[lengths] = self._transformer.rotary(sizes, text, lengths)
        return table


PIPELINE = ZImagePipeline
