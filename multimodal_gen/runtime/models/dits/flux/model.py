"""The FLUX transformer, after black-forest-labs/flux and diffusers' FluxTransformer2DModel.

Every block is modulated by the timestep, the guidance and a pooled text embedding. One matrix
product here may be several tensors in a checkpoint: keys.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import block_vectors, split_vectors
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.after_block import Residuals, adding
from multimodal_gen.runtime.models.dits.flux.backbone import OUT_VECTORS, FluxBackbone
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig


class FluxTransformer(FluxBackbone):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `flux_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")
    first_scale: ClassVar = 0
    """Number of the first scale among the modulation vectors; every third is one."""

    def __init__(self, config: FluxConfig, parts: Parts) -> None:
        super().__init__(config, parts)
        self.config = config
        dim = config.inner_dim
        self.time_embedder = EmbeddingMLP(parts, 256, dim)
        self.guidance_embedder = EmbeddingMLP(parts, 256, dim) if config.guidance_embeds else None
        self.text_embedder = EmbeddingMLP(parts, config.pooled_projection_dim, dim)
        self.out_modulation = parts.linear(dim, OUT_VECTORS * dim)
        for block in self._blocks:
            block.modulation = parts.linear(dim, block.vectors * dim)
        self._modulations = [self.out_modulation, *(block.modulation for block in self._blocks)]
        self._vectors = [OUT_VECTORS, *(block.vectors for block in self._blocks)]

    @property
    def layers_ahead(self) -> Sequence[nn.Module]:
        """Layers of blocks that run before the first block."""
        return self._modulations

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        guidance: Tensor | None = None,
        picture: Tensor | None = None,
        control: Residuals | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S_img, out] for packed latents [B, S_img, C].

        `encoder_hidden_states` is [B, S_txt, D], `pooled_projections` [B, P], `timestep` [B] in
        0..1, `rotary` the result of `rotary` for these tokens, `guidance` [B], only for a model
        with `guidance_embeds`; `picture` [B, S_pic, C] the packed latents of an input image;
        `control` is added to the image's tokens.
        """
        given = (hidden_states,) if picture is None else (hidden_states, picture)
        vectors = self._modulate(timestep, guidance, pooled_projections, lora)
        return self.denoise(
            given, encoder_hidden_states, vectors, rotary, lora, after=adding(control)
        )

    def _modulate(
        self, timestep: Tensor, guidance: Tensor | None, pooled: Tensor, lora: LoraRows | None
    ) -> list[Sequence[Tensor]]:
        """Modulation vectors of an evaluation, each [B, 1, dim].

        Scale and shift of the last norm, then for each block shift, scale, gate (double blocks:
        image attention, image MLP, text attention, text MLP). So every third is a scale.
        """
        dtype, dim = pooled.dtype, self.config.inner_dim
        embedded = self._embed(self.time_embedder, timestep, dtype, lora)
        if self.guidance_embedder is not None:
            if guidance is None:
                raise ValueError("this model needs guidance [B]")
            embedded = embedded + self._embed(self.guidance_embedder, guidance, dtype, lora)
        embedded = nn.functional.silu(embedded + self.text_embedder(pooled, lora))
        vectors = block_vectors(self._modulations, embedded, dim, lora)
        vectors[:, self.first_scale :: 3].add_(1)
        return split_vectors(vectors, self._vectors)

    @staticmethod
    def _embed(
        embedder: nn.Module, value: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> Tensor:
        # Times 1000 in the model's own dtype, including its rounding, as in the reference.
        embedded: Tensor = embedder(sinusoidal_embedding(value.to(dtype) * 1000).to(dtype), lora)
        return embedded
