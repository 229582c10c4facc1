"""PixArt-Sigma, after diffusers' PixArtSigmaPipeline. A small family: read it to add another.

Pictures are made at the size that is asked for, as with `use_resolution_binning=False` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.pixart_sigma import PIXART_SIGMA
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoints import Checkpoint
from multimodal_gen.runtime.loader.libraries import T5_TOKENIZERS
from multimodal_gen.runtime.models.adapter import DiffusersDenoiser
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.image import (
    decode_image,
    decode_preview,
    for_decoding,
    scale_factor,
)
from multimodal_gen.runtime.pipelines.composed_pipeline import (
    ComposedPipeline,
    size_of,
    text_of,
)
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState
from multimodal_gen.runtime.pipelines.rows import Rows
from multimodal_gen.runtime.pipelines.trained_size import trained_size


class PixArtSigmaPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, h, w]."""

    family = PIXART_SIGMA
    component_classes: ClassVar = {
        "tokenizer": T5_TOKENIZERS,
        "text_encoder": ("T5EncoderModel",),
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),  # the old name
        "vae": ("AutoencoderKL",),
    }
    denoiser_name = "transformer"
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.caption_channels": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._t5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._predict = DiffusersDenoiser(self.components["transformer"])
        self._vae = for_decoding(self.components["vae"])

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return trained_size(cls.family, checkpoint, "transformer")

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        length = state.params.max_sequence_length
        assert length is not None
        return self.prompt_cache.get((text, length), lambda: self._encode(text, length))

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states, and which of them are not padding."""
        text = text.lower().strip()
        states = self._t5(text, length, masked=True)[0]  # [1, length, D]
        _, mask = self._t5.tokenize(text, length)
        return {
            "encoder_hidden_states": states.to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    @property
    def size_multiple(self) -> int:
        """Pixels along each side of a token."""
        return int(scale_factor(self._vae) * self.components["transformer"].config.patch_size)

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        height, width = size_of(params)
        pixels = scale_factor(self._vae)
        channels = self.components["transformer"].config.in_channels
        shape = (1, channels, height // pixels, width // pixels)
        return torch.randn(shape, generator=generator, dtype=self.context.dtype)

    def predict(self, rows: Rows) -> Tensor:
        """The noise; the variances that most checkpoints also predict are used by no solver."""
        prediction = self._predict(rows.latents, rows.timesteps, rows.conditioning)
        return prediction[:, : rows.latents.shape[1]]

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        return decode_image(self._vae, latents)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return decode_preview(self._vae, x0)


PIPELINE = PixArtSigmaPipeline
