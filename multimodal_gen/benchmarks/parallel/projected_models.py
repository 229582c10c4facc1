"""The evaluations that are projected: published transformers, on tensors that have only shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer


@dataclass(frozen=True)
class ProjectedModel:
    """A transformer, and the shapes of one row's inputs."""

    title: str
    config: TransformerConfig
    make: Callable[[Any, Parts], nn.Module]
    rows: int
    tokens: int
    """Per row, text included."""
    latents: tuple[int, ...]
    text: tuple[int, int]
    timesteps: tuple[int, ...] = ()
    further: Mapping[str, tuple[int, ...]] | None = None
    rotary: Callable[[Any], Tensor] = lambda model: model.rotary()

    def inputs(self, model: Any, rows: int, device: torch.device) -> dict[str, Tensor]:
        """Arguments of the model for so many rows, in its dtype."""
        shapes: dict[str, Sequence[int]] = {
            "hidden_states": self.latents,
            "encoder_hidden_states": self.text,
            "timestep": self.timesteps,
            **(self.further or {}),
        }
        made = {
            name: torch.empty(rows, *shape, dtype=torch.bfloat16, device=device)
            for name, shape in shapes.items()
        }
        return {**made, "rotary": self.rotary(model)}


PROJECTED_MODELS: Mapping[str, ProjectedModel] = {
    "flux": ProjectedModel(
        title="FLUX.1-dev, 1024 x 1024",
        config=FluxConfig(guidance_embeds=True),
        make=FluxTransformer,
        rows=1,
        tokens=4096 + 512,
        latents=(4096, 64),
        text=(512, 4096),
        further={"pooled_projections": (768,), "guidance": ()},
        rotary=lambda model: model.rotary(512, ((64, 64),)),
    ),
    "qwen_image": ProjectedModel(
        title="Qwen-Image, 1024 x 1024, guided",
        config=QwenImageConfig(),
        make=QwenImageTransformer,
        rows=2,
        tokens=4096 + 256,
        latents=(4096, 64),
        text=(256, 3584),
        rotary=lambda model: model.rotary(256, ((64, 64),)),
    ),
    "wan_14b": ProjectedModel(
        title="Wan 2.1 14B, 1280 x 720, 81 frames, guided",
        config=WanConfig(),
        make=WanTransformer,
        rows=2,
        tokens=21 * 45 * 80,
        latents=(16, 21, 90, 160),
        text=(512, 4096),
        timesteps=(1,),
        rotary=lambda model: model.rotary((21, 90, 160)),
    ),
}
