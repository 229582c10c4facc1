"""FLUX.2 klein, after diffusers' Flux2KleinPipeline and Flux2KleinInpaintPipeline: from a text, or
with reference images too."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.families.flux2 import BASE_DEFAULTS, FLUX2
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.flux2.config import Flux2Config
from multimodal_gen.runtime.models.dits.flux2.keys import flux2_key_map
from multimodal_gen.runtime.models.dits.flux2.model import Flux2Transformer
from multimodal_gen.runtime.models.encoders.chat import ChatEncoder
from multimodal_gen.runtime.models.encoders.qwen3 import Qwen3Encoder
from multimodal_gen.runtime.models.vaes.flux2 import PATCH, Flux2VAE
from multimodal_gen.runtime.models.vaes.input_images import fit_image
from multimodal_gen.runtime.models.vaes.reference_images import (
    at_most_shown,
    crop_reference,
    reference_size,
)
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance, NoGuidance
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.latents.tokens import LatentTokens
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class Flux2KleinPipeline(ComposedPipeline):
    """Latents are tokens [1, h * w, 4 * C] of 2 x 2 VAE latents each."""

    family = FLUX2
    tokens_beside = ("references",)
    native = NativeTransformer(Flux2Config, Flux2Transformer, flux2_key_map)
    vae_class = Flux2VAE
    layers: ClassVar = (9, 18, 27)
    """Layers of the text encoder whose states are the conditioning."""
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",) * PATCH**2,
        "transformer.joint_attention_dim": ("text_encoder.hidden_size",) * len(layers),
    }

    def __init__(self, *args: Any, distilled: bool) -> None:
        super().__init__(*args)
        self._encoder = self.make_encoder()
        self.reads.in_one = {"text_encoder": self._encoder}
        self._encoder.require_layers(max(self.layers))
        self._transformer: Flux2Transformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        self.layout = LatentTokens(self.vae, self.context)
        self.guidance = NoGuidance() if distilled else ClassifierFreeGuidance()
        self.start = PictureStart(self.layout, flow_model_start, picture=self._picture)

    def make_encoder(self) -> ChatEncoder:
        tokenizer, module = self.components["tokenizer"], self.components["text_encoder"]
        return Qwen3Encoder(tokenizer, module, thinking=False, padded=True)

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"distilled": bool(checkpoint.options.get("is_distilled", False))}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return cls.family.defaults if checkpoint.options.get("is_distilled") else BASE_DEFAULTS

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """Concatenated states of three of the text encoder's layers, for all `length` tokens."""
        states = self._encoder.states(text, length, self.layers)
        return {"encoder_hidden_states": torch.cat(states, dim=-1).to(self.context.dtype)}

    def prepare(self, state: RequestState) -> None:
        """Add the reference images to the conditioning, the same in all branches."""
        super().prepare(state)
        if "image" in state.pictures:
            references = self._references(state)
            for conditioning in state.conditioning.values():
                conditioning["references"] = references

    def _references(self, state: RequestState) -> Tensor:
        """For inpainting, the first reference is the image that it starts from."""
        images, tokens = images_of(state.pictures), []
        if "mask" in state.pictures:
            images, tokens = images[1:], [self._picture(state)]
        cropped = (crop_reference(each, self.size_multiple) for each in images)
        return torch.cat([*tokens, *map(self.layout.encode, cropped)], dim=1)

    def _picture(self, state: RequestState) -> Tensor:
        picture = np.asarray(at_most_shown(state.pictures["image"]))
        pixels = fit_image(picture, *size_of(state.params))
        return self.layout.encode(pixels)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{self._grids(state)} text {self.text_tokens(state)}"

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        steps = params.num_inference_steps
        assert steps is not None
        mu = _shift(self.layout.tokens(params), steps)
        return {"sigmas": falling_sigmas(params), "mu": mu}

    def predict(self, rows: Rows) -> Tensor:
        text = rows.conditioning["encoder_hidden_states"].shape[1]
        tensors = {
            "hidden_states": rows.latents,
            "timestep": rows.timesteps.to(rows.latents.dtype) / 1000,
            "rotary": self._transformer.rotary(text, self._grids(rows.states[0])),
            **rows.conditioning,
        }
        return self._denoiser(tensors, lora=rows.lora)

    def _grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Grids of the output, then of the reference images."""
        down, across = self.layout.grid(state.params)
        multiple = self.size_multiple
        sizes = (reference_size(each, multiple) for each in images_of(state.pictures))
        shown = [(height // multiple, width // multiple) for height, width in sizes]
        if "mask" in state.pictures:
            shown[0] = down, across
        return (down, across), *shown


def _shift(tokens: int, steps: int) -> float:
    """mu of the dynamic shift, fitted by the authors: linear in the steps between two lines that
    are linear in the tokens, for 10 and 200 steps (diffusers' compute_empirical_mu)."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_200 + (at_200 - at_10) / 190 * (steps - 200)


PIPELINE = Flux2KleinPipeline
