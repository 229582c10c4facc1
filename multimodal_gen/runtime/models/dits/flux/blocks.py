"""Blocks of FLUX and of models made from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.attention.image_prompts import ImagePrompts
from multimodal_gen.runtime.layers.joint_stream import (
    BlockContext,
    JointStream,
    StreamInput,
    joint_block,
    start_attention,
    within_fp16,
)
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.modulation import gated_add, modulated_norm
from multimodal_gen.runtime.layers.norm import HeadNorms
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.config import JointConfig


class FluxDoubleBlock(nn.Module):
    """Text and image with separate weights and joint attention."""

    vectors: ClassVar = 12
    """Modulation vectors: 6 for the image, 6 for the text."""
    modulation: Linear
    """Gives them in models whose blocks have one each, which set it."""

    def __init__(self, config: JointConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim = config.inner_dim
        self.image = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)
        self.text = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)
        self.prompts = ImagePrompts(parts, dim, config.num_attention_heads)

    def forward(
        self, image: Tensor, text: Tensor, modulation: Sequence[Tensor], context: BlockContext
    ) -> tuple[Tensor, Tensor]:
        inputs = (
            StreamInput(self.text, text, modulation[6:]),
            StreamInput(self.image, image, modulation[:6]),
        )
        context = self.prompts.looking(context, after=text.shape[1])
        text, image = joint_block(self.parts, inputs, context)
        return self.prompts.added(image), within_fp16(text)


class FluxSingleBlock(nn.Module):
    """One stream; attention and MLP in parallel, between two matrix products."""

    vectors: ClassVar = 3
    modulation: Linear

    def __init__(self, config: JointConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim, width = config.inner_dim, config.attention_head_dim
        self.heads = (3, parts.heads(config.num_attention_heads), width)
        outputs, units = (dim, dim, dim, config.mlp_dim), (width, width, width, 1)
        self.qkv_mlp = parts.column(dim, outputs, unit=units)
        self.qk_norm = parts.qk_norm(width)
        self.proj_out = parts.row((dim, config.mlp_dim), dim, unit=(width, 1))

    def forward(self, x: Tensor, modulation: Sequence[Tensor], context: BlockContext) -> Tensor:
        shift, scale, gate = modulation
        qkv, mlp = self.parts.in_two(
            self.qkv_mlp, modulated_norm(x, shift, scale), math.prod(self.heads), context.lora
        )
        qkv = qkv.view(*qkv.shape[:2], *self.heads)  # [B, S, 3, H, D]
        norms = HeadNorms([self.qk_norm], qkv.shape[1:2], 1e-6, context.lora)
        attending = start_attention(self.parts, qkv, norms, context)
        hidden = gelu_tanh(mlp())  # while queries, keys and values travel between ranks
        update = self.proj_out(torch.cat((attending.wait(), hidden), dim=-1), context.lora)
        return within_fp16(gated_add(x, gate, update))
