"""The Chroma transformer, after diffusers' ChromaTransformer2DModel.

It is FLUX without a pooled text embedding and with the modulation of all blocks approximated by one
small network, from the timestep and each vector's number. The reference masks the padding of texts
by adding 1 to the attention between all other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.emphasis import rotary_scale
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import RotaryTables
from multimodal_gen.runtime.models.dits.chroma.config import ChromaConfig
from multimodal_gen.runtime.models.dits.flux.backbone import FluxBackbone
from multimodal_gen.runtime.models.dits.flux.blocks import FluxDoubleBlock, FluxSingleBlock

_OF_STREAM = FluxDoubleBlock.vectors // 2


class ChromaTransformer(FluxBackbone):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `chroma_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "approximator*", "proj_out")

    def __init__(self, config: ChromaConfig, parts: Parts) -> None:
        super().__init__(config, parts, rotary_scale(config.attention_head_dim))
        self.config = config
        self.approximator = Approximator(config, parts)
        self._numbers = RotaryTables[Tensor]()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        emphasis: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S_img, out] for packed latents [B, S_img, C].

        `encoder_hidden_states` is [B, S_txt, D], `emphasis` [B, S_txt] 1 for the text's tokens and
        0 for those of padding, `timestep` [B] in 0..1, `rotary` the result of `rotary` for these
        tokens.
        """
        vectors = self._modulate(timestep.to(hidden_states.dtype) * 1000, lora)
        return self.denoise(
            (hidden_states,), encoder_hidden_states, vectors, rotary, lora, emphasis
        )

    def _modulate(self, timestep: Tensor, lora: LoraRows | None) -> list[Sequence[Tensor]]:
        """Modulation vectors of an evaluation, each [B, 1, dim]: as in FLUX.

        The network gives those of the single blocks, then of the double blocks' images, of their
        texts, and of the last norm; in each three shift, scale and gate.
        """
        approximated = self.approximator(self._input(timestep), lora)  # [B, vectors, dim]
        approximated[:, 1::3].add_(1)
        vectors = approximated.unsqueeze(2).unbind(1)
        doubles, singles = self.config.num_layers, self.config.num_single_layers
        of_image = FluxSingleBlock.vectors * singles
        of_text = of_image + _OF_STREAM * doubles
        starts = range(0, _OF_STREAM * doubles, _OF_STREAM)
        return [
            (vectors[-1], vectors[-2]),
            *(
                (*vectors[of_image + i :][:_OF_STREAM], *vectors[of_text + i :][:_OF_STREAM])
                for i in starts
            ),
            *(vectors[i : i + FluxSingleBlock.vectors] for i in range(0, of_image, 3)),
        ]

    def _input(self, timestep: Tensor) -> Tensor:
        """Embeddings of the timestep, of a guidance of 0 and of each vector's number, [B, vectors,
        C]."""
        channels, dtype = self.config.approximator_num_channels // 4, timestep.dtype

        def numbered() -> Tensor:
            # On the CPU: at such angles, devices round differently.
            numbers = torch.arange(self.config.vectors) * 1000
            table = sinusoidal_embedding(numbers, 2 * channels)
            guidance = sinusoidal_embedding(torch.zeros(1), channels).expand(len(table), -1)
            return copied(torch.cat((guidance, table), dim=1), timestep.device, dtype)

        table = self._numbers.get((timestep.device, dtype), numbered)
        embedded = sinusoidal_embedding(timestep, channels).to(dtype)
        shape = (len(timestep), len(table), -1)
        return torch.cat((embedded[:, None].expand(shape), table.expand(shape)), dim=-1)


class Approximator(nn.Module):
    """An MLP with residuals: [B, S, in] -> [B, S, out]."""

    def __init__(self, config: ChromaConfig, parts: Parts) -> None:
        super().__init__()
        hidden, layers = config.approximator_hidden_dim, range(config.approximator_layers)
        self.in_proj = parts.linear(config.approximator_num_channels, hidden)
        self.layers = nn.ModuleList(EmbeddingMLP(parts, hidden, hidden) for _ in layers)
        self.norms = nn.ModuleList(ApproximatorNorm(hidden) for _ in layers)
        self.out_proj = parts.linear(hidden, config.inner_dim)

    def forward(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        x = self.in_proj(x, lora)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x, lora), lora)
        approximated: Tensor = self.out_proj(x, lora)
        return approximated


class ApproximatorNorm(Elementwise):
    """RMS norm of x [B, S, D] over D; its epsilon is the smallest of the dtype."""

    def forward(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        return F.rms_norm(x, x.shape[-1:]) * self.weight_of(lora)
