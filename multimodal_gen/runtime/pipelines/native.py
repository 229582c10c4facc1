"""Loads the transformers of this project, whose work ranks may share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.config import TransformerConfig

AnyConfig = TypeVar("AnyConfig", bound=TransformerConfig)


@dataclass(frozen=True)
class NativeTransformer(Generic[AnyConfig]):
    """Describes how to create a family's denoiser, if it is a transformer of this project."""

    config_class: type[AnyConfig]
    make: Callable[[AnyConfig, Parts], nn.Module]
    key_map: Callable[[AnyConfig], Mapping[str, tuple[str, ...]]]
    """Checkpoint tensors of each parameter."""

    def load(self, checkpoint: Checkpoint, name: str, context: RankContext) -> nn.Module:
        """Load component `name`. Raises InvalidCheckpoint."""
        config = self.config_class.from_dict(checkpoint.config(name))
        return checkpoint.load_native(
            name,
            lambda: self._made(config, context),
            self.key_map(config),
            context.dtype,
            context.device,
        )

    def outline(self, checkpoint: Checkpoint, name: str, context: RankContext) -> nn.Module:
        """Component `name` without weights, on the meta device."""
        config = self.config_class.from_dict(checkpoint.config(name))
        with torch.device("meta"):
            return self._made(config, context).eval().requires_grad_(False)

    def _made(self, config: AnyConfig, context: RankContext) -> nn.Module:
        attention = select_attention(context.attention_backend, context.device)
        return self.make(config, make_parts(context.mesh, attention))
