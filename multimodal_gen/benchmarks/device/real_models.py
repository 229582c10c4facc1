"""The models that are measured: real sizes, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import diffusers
import torch

from multimodal_gen.benchmarks.device.stand_ins import (
    StandInEncoder,
    StandInTokenizer,
    fill_randomly,
)
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import Conditioning

_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
_DYNAMIC = {
    **_FLOW,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
_KL = {
    "latent_channels": 16,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
_PICTURE = {"width": 1024, "height": 1024}


@dataclass(frozen=True)
class RealModel:
    """A published model: what its config files say, and a request of the usual size."""

    family: str
    """Module of its pipeline."""
    transformer: Mapping[str, Any]
    """Values that differ from the defaults of the config's class."""
    tiny: Mapping[str, Any]
    """Further values, of a transformer that tests can run."""
    vae: tuple[str, Mapping[str, Any], Mapping[str, Any]]
    """Class of diffusers, its values, and those for tests."""
    scheduler: Mapping[str, Any]
    request: Mapping[str, Any]
    states: Mapping[str, tuple[int, ...]]
    """Shape of each tensor that the text encoders give; a token dimension comes second."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def params(self, scale: Scale) -> dict[str, Any]:
        """Sampling parameters of the request."""
        params = {"prompt": "a red heart", "seed": 0, "num_inference_steps": 50, **self.request}
        if scale != "full":
            side = 64 if scale == "tiny" else 256
            params |= {"width": side, "height": side}
            params |= {"num_frames": 5} if "num_frames" in params else {}
        return params

    def pipeline(self, device: torch.device, dtype: torch.dtype, scale: Scale) -> ComposedPipeline:
        """Make the pipeline with random weights, which exist on the device only."""
        kind = import_module(f"multimodal_gen.runtime.pipelines.families.{self.family}").PIPELINE
        context = RankContext(device, dtype, Mesh(), "auto")
        components = {
            name: self._component(kind, name, context, scale)
            for name, spec in kind.family.components.items()
            if not spec.optional or name == "transformer"
        }
        arguments = components, dict(self.scheduler), kind.family.defaults, context
        pipeline: ComposedPipeline = kind(*arguments, **self.settings)
        pipeline._encode = partial(self._states, device, dtype, scale)  # type: ignore[attr-defined]
        return pipeline

    def _component(self, kind: Any, name: str, context: RankContext, scale: Scale) -> Any:
        if name == "transformer":
            return self._transformer(kind, context, scale)
        if name == "vae":
            class_name, real, tiny = self.vae
            dtype = kind.dtype_of(None, name, context)
            with torch.device(context.device):
                made = getattr(diffusers, class_name)(
                    **{**real, **({} if scale == "full" else tiny)}
                )
            module = made.to(dtype).eval().requires_grad_(False)
            return kind.vae_class.transform(module)
        if name.startswith("tokenizer"):
            return StandInTokenizer()
        return StandInEncoder(self._width(scale))

    def _transformer(self, kind: Any, context: RankContext, scale: Scale) -> torch.nn.Module:
        native = kind.native
        values = {**self.transformer, **self._less(scale)}
        config = native.config_class(**values)
        parts = make_parts(context.mesh, select_attention("auto", context.device))
        with torch.device("meta"):
            module: torch.nn.Module = native.make(config, parts).eval()
        fill_randomly(module.requires_grad_(False), context.dtype, context.device)
        return module

    def _less(self, scale: Scale) -> Mapping[str, Any]:
        """Values by which the transformer is smaller than the published one."""
        if scale == "shallow":
            return {name: value for name, value in self.tiny.items() if "layers" in name}
        return self.tiny if scale == "tiny" else {}

    def _width(self, scale: Scale) -> int:
        return _scaled(self.states["encoder_hidden_states"], scale)[-1]

    def _states(
        self,
        device: torch.device,
        dtype: torch.dtype,
        scale: Scale,
        text: str | ReadPrompt,
        length: int,
    ) -> Conditioning:
        """In place of a pipeline's `_encode`."""
        generator = torch.Generator("cpu").manual_seed(len(str(text)))
        return {
            name: torch.randn(_scaled(shape, scale), generator=generator).to(device, dtype)
            for name, shape in self.states.items()
        }


def _scaled(shape: tuple[int, ...], scale: Scale) -> tuple[int, ...]:
    """The shape [1, ..., width], or a few tokens of a small width."""
    return shape if scale != "tiny" else (1, *(8 for _ in shape[1:-1]), 32)


_TINY_KL = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
_TINY_WAN_VAE = {"base_dim": 16, "num_res_blocks": 1}

REAL_MODELS: Mapping[str, RealModel] = {
    "flux": RealModel(
        family="flux",
        transformer={"guidance_embeds": True},
        tiny={
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
        vae=("AutoencoderKL", _KL, _TINY_KL),
        scheduler=_DYNAMIC,
        request={**_PICTURE, "guidance_scale": 3.5},
        states={"encoder_hidden_states": (1, 512, 4096), "pooled_projections": (1, 768)},
    ),
    "qwen_image": RealModel(
        family="qwen_image",
        transformer={},
        tiny={
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
        vae=("AutoencoderKLQwenImage", {}, _TINY_WAN_VAE),
        scheduler={**_DYNAMIC, "shift": 1.0, "max_image_seq_len": 8192, "max_shift": 0.9},
        request={**_PICTURE, "true_cfg_scale": 4.0, "negative_prompt": " "},
        states={"encoder_hidden_states": (1, 256, 3584)},
    ),
    "z_image": RealModel(
        family="z_image",
        transformer={"axes_lens": (1536, 512, 512)},
        tiny={
            "dim": 64,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 32,
            "axes_dims": (8, 12, 12),
        },
        vae=("AutoencoderKL", _KL, _TINY_KL),
        scheduler={**_FLOW, "shift": 3.0},
        request={**_PICTURE, "guidance_scale": 0.0},
        states={"encoder_hidden_states": (1, 256, 2560)},
    ),
    "wan": RealModel(
        family="wan",
        transformer={"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        tiny={
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "ffn_dim": 64,
            "num_layers": 2,
            "text_dim": 32,
        },
        vae=("AutoencoderKLWan", {}, _TINY_WAN_VAE),
        scheduler={
            "_class_name": "UniPCMultistepScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": 3.0,
        },
        request={"width": 832, "height": 480, "num_frames": 81, "guidance_scale": 5.0},
        states={"encoder_hidden_states": (1, 512, 4096)},
        settings={"boundary_ratio": None},
    ),
}
"""FLUX.1-dev, Qwen-Image, Z-Image Turbo and Wan 2.1 1.3B."""
