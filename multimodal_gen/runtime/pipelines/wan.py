"""Wan 2.1 text-to-video, after diffusers' WanPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.wan import WAN
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.checkpoints import Checkpoint
from multimodal_gen.runtime.loader.libraries import T5_TOKENIZERS
from multimodal_gen.runtime.models.adapter import DiffusersDenoiser
from multimodal_gen.runtime.models.encoders.cleaning import clean
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.wan import WanVideoDecoder
from multimodal_gen.runtime.pipelines.composed_pipeline import (
    ComposedPipeline,
    RankContext,
    text_of,
)
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState
from multimodal_gen.runtime.pipelines.rows import Rows


class WanPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, T, h, w], and stay in float32 between evaluations."""

    family = WAN
    component_classes: ClassVar = {
        "tokenizer": T5_TOKENIZERS,
        "text_encoder": ("UMT5EncoderModel",),
        "transformer": ("WanTransformer3DModel",),
        "vae": ("AutoencoderKLWan",),
    }
    denoiser_name = "transformer"
    widths: ClassVar = {
        "transformer.in_channels": ("vae.z_dim",),
        "transformer.text_dim": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._umt5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._predict = DiffusersDenoiser(self.components["transformer"])
        self._vae = self.components["vae"]
        self._decoder = WanVideoDecoder(self._vae)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        options = checkpoint.options
        two_experts = (
            "transformer_2" in checkpoint.components or options.get("boundary_ratio") is not None
        )
        if two_experts or options.get("expand_timesteps"):
            raise InvalidCheckpoint(
                "model_index.json: a Wan 2.2 model (transformer_2, boundary_ratio or "
                "expand_timesteps is set); Wan 2.1 text-to-video is known"
            )

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        """The VAE is kept in float32, as the reference advises."""
        dtype = torch.float32 if name == "vae" else context.dtype
        return checkpoint.load(name, dtype, context.device)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        length = state.params.max_sequence_length
        assert length is not None
        return self.prompt_cache.get((text, length), lambda: self._encode(text, length))

    def _encode(self, text: str, length: int) -> Conditioning:
        """UMT5's states, zeros after the end of the text."""
        text = clean(text)
        states = self._umt5(text, length, masked=True).last_hidden_state  # [1, length, D]
        _, mask = self._umt5.tokenize(text, length)
        states = states.masked_fill(~mask.bool().unsqueeze(-1), 0)
        return {"encoder_hidden_states": states.to(self.context.dtype)}

    @property
    def size_multiple(self) -> int:
        _, down, across = self.components["transformer"].config.patch_size
        return int(self._vae.config.scale_factor_spatial * max(down, across))

    @property
    def frame_multiple(self) -> int:
        return int(self._vae.config.scale_factor_temporal)

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        assert params.width is not None
        assert params.height is not None
        pixels = self._vae.config.scale_factor_spatial
        channels = self.components["transformer"].config.in_channels
        frames = self.decode_chunks(params)
        shape = (1, channels, frames, params.height // pixels, params.width // pixels)
        return torch.randn(shape, generator=generator)

    def predict(self, rows: Rows) -> Tensor:
        return self._predict(rows.latents, rows.timesteps, rows.conditioning)

    def decode_chunks(self, params: SamplingParams) -> int:
        """A latent frame each."""
        assert params.num_frames is not None
        return (params.num_frames - 1) // self.frame_multiple + 1

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        (state,) = states
        features = state.decoding.get("features") if chunk else None
        pixels, state.decoding["features"] = self._decoder.frame(latents, chunk, features)
        return pixels


PIPELINE = WanPipeline
