"""Native transformers as deep as published ones, with inputs that have only shapes: for
`benchmarks.parallel.work.work_of`, which counts the operations of an evaluation.

`python tests/helpers/real_depths.py` prints them, with and without fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from multimodal_gen.benchmarks.parallel import work
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.runtime.models.dits.chroma.config import ChromaConfig
from multimodal_gen.runtime.models.dits.chroma.model import ChromaTransformer
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.flux2.config import Flux2Config
from multimodal_gen.runtime.models.dits.flux2.model import Flux2Transformer
from multimodal_gen.runtime.models.dits.krea2.config import Krea2Config
from multimodal_gen.runtime.models.dits.krea2.model import Krea2Transformer
from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config
from multimodal_gen.runtime.models.dits.ltx2.model import LTX2Transformer
from multimodal_gen.runtime.models.dits.ltx2.rotary import VideoGrid
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config
from multimodal_gen.runtime.models.dits.minimax_h3.model import Counts, MiniMaxH3Transformer
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.qwen_image_21.config import QwenImage21Config
from multimodal_gen.runtime.models.dits.qwen_image_21.model import QwenImage21Transformer
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer

Inputs = dict[str, Any]
_GRID = ((64, 64),)
_VIDEO = (21, 60, 104)


@dataclass(frozen=True)
class RealDepth:
    """A published transformer; `given` are inputs of the model for so many rows."""

    config: Any
    make: Callable[..., torch.nn.Module]
    rows: int
    given: Callable[[Any, int], Inputs]

    def inputs(self, model: Any, rows: int, device: torch.device) -> Inputs:
        with device:
            return self.given(model, rows)


def half(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16)


def joint(rows: int, text: tuple[int, int], rotary: Tensor, channels: int = 64) -> Inputs:
    return {
        "hidden_states": half(rows, 4096, channels),
        "encoder_hidden_states": half(rows, *text),
        "timestep": half(rows),
        "rotary": rotary,
    }


def flux(model: FluxTransformer, rows: int) -> Inputs:
    more = {"pooled_projections": half(rows, 768), "guidance": half(rows)}
    return joint(rows, (512, 4096), model.rotary(512, _GRID)) | more


def chroma(model: ChromaTransformer, rows: int) -> Inputs:
    given = joint(rows, (512, 4096), model.rotary(512, _GRID))
    return given | {"emphasis": torch.empty(rows, 512)}


def sd3(_: SD3Transformer, rows: int) -> Inputs:
    return {
        "latents": half(rows, 16, 128, 128),
        "encoder_hidden_states": half(rows, 333, 4096),
        "pooled_projections": half(rows, 2048),
        "timestep": torch.empty(rows),
    }


def z_image(model: ZImageTransformer, rows: int) -> Inputs:
    return {
        "latents": half(rows, 16, 128, 128),
        "text": half(rows, 64, model.config.dim),
        "text_tokens": 64,
        "timestep": torch.empty(rows),
        "rotary": model.rotary((128, 128), 64),
    }


def krea2(model: Krea2Transformer, rows: int) -> Inputs:
    return {
        "hidden_states": half(rows, 4096, 64),
        "text": half(rows, 256, model.config.inner_dim),
        "text_tokens": 256,
        "timestep": half(rows),
        "rotary": model.rotary(256, (64, 64)),
    }


def qwen_image_21(model: QwenImage21Transformer, rows: int) -> Inputs:
    config = model.config
    heads = (config.num_attention_heads, config.attention_head_dim)
    return {
        "hidden_states": half(rows, 4096, 64),
        "prefix": half(rows, 256, config.num_layers, 2, *heads),
        "timestep": half(rows),
        "rotary": model.rotary((256,), (64, 64))[1],
    }


def ltx2(model: LTX2Transformer, rows: int) -> Inputs:
    grid = VideoGrid(16, 16, 24, 24.0)
    return {
        "hidden_states": half(rows, 16 * 16 * 24 + 128, 128),
        "timestep": torch.empty(rows, 1),
        "sigma": torch.empty(rows),
        "encoder_hidden_states": half(rows, 256, 3840),
        "audio_encoder_hidden_states": half(rows, 256, 3840),
        "rotary": [*model.rotary(grid, 128)],
        "grid": grid,
        "audio_tokens": 128,
    }


def minimax_h3(model: MiniMaxH3Transformer, rows: int) -> Inputs:
    tokens = 8 * 16 * 24
    return {
        "hidden_states": half(rows, tokens, 96),
        "audio_hidden_states": half(rows, 200, 32),
        "text": half(rows, 256, model.config.hidden_size),
        "timestep": torch.empty(rows, 2),
        "rotary": model.rotary(torch.empty(1, tokens + 456, 3)),
        "counts": Counts(tokens, 0, 200, 0, 0),
    }


def wan(model: WanTransformer, rows: int) -> Inputs:
    return {
        "hidden_states": half(rows, 16, *_VIDEO),
        "encoder_hidden_states": half(rows, 512, 4096),
        "timestep": torch.empty(rows, 1),
        "rotary": model.rotary(_VIDEO),
    }


_SD35_LARGE = SD3Config(
    num_layers=38,
    num_attention_heads=38,
    qk_norm="rms_norm",
    pos_embed_max_size=192,
    caption_projection_dim=2432,
)
MODELS: Mapping[str, RealDepth] = {
    "FLUX.1-dev": RealDepth(FluxConfig(guidance_embeds=True), FluxTransformer, 1, flux),
    "Chroma": RealDepth(ChromaConfig(), ChromaTransformer, 2, chroma),
    "Stable Diffusion 3.5 large": RealDepth(_SD35_LARGE, SD3Transformer, 2, sd3),
    "Z-Image": RealDepth(ZImageConfig(), ZImageTransformer, 1, z_image),
    "Qwen-Image": RealDepth(
        QwenImageConfig(),
        QwenImageTransformer,
        2,
        lambda model, rows: joint(rows, (256, 3584), model.rotary(256, _GRID)),
    ),
    "FLUX.2-dev": RealDepth(
        Flux2Config(),
        Flux2Transformer,
        1,
        lambda model, rows: (
            joint(rows, (512, 15360), model.rotary(512, _GRID), 128) | {"guidance": half(rows)}
        ),
    ),
    "Qwen-Image 2.1": RealDepth(QwenImage21Config(), QwenImage21Transformer, 2, qwen_image_21),
    "Krea 2": RealDepth(Krea2Config(), Krea2Transformer, 2, krea2),
    "LTX-2": RealDepth(LTX2Config(), LTX2Transformer, 2, ltx2),
    "MiniMax-H3": RealDepth(MiniMaxH3Config(), MiniMaxH3Transformer, 1, minimax_h3),
    "Wan 2.1 14B": RealDepth(WanConfig(), WanTransformer, 2, wan),
}


def kernels(name: str) -> int:
    """Operations of an evaluation in bfloat16 on one GPU, without views."""
    return work.work_of(MODELS[name], ParallelConfig()).launches  # type: ignore[arg-type]


if __name__ == "__main__":
    for name in MODELS:
        fused = kernels(name)
        with mock.patch.object(work, "_FusedKernels", return_value=None):
            print(f"{name:28}{fused:6}{kernels(name):6}", flush=True)
