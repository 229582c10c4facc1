"""What all Wan models share: the text, the geometry, one or two experts, decoding by frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.wan import EXPERT_PARAMETERS
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.keys import wan_key_map
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.encoders.cleaning import clean
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.wan import WanVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import (
    ComposedPipeline,
    size_of,
)
from multimodal_gen.runtime.pipelines.native import load_transformer
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

EXPERTS = ("transformer", "transformer_2")
"""Of high noise, and of low noise."""
_FLOAT32 = ("vae", "image_encoder")


class WanBasePipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, T, h, w], and stay in float32 between evaluations."""

    denoiser_name = "transformer"
    vae_class = WanVAE
    latent_widths: ClassVar[tuple[str, ...]] = ("vae.z_dim",)
    """What the transformers' channels of input are the sum of."""

    def __init__(self, *args: Any, boundary_ratio: float | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._umt5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.vae = WanVAE(self.components["vae"])
        self._experts: dict[str, WanTransformer] = {
            name: self.components[name] for name in EXPERTS if name in self.components
        }
        self._denoisers = {name: self.native_denoiser(name) for name in self._experts}
        self._config = next(iter(self._experts.values())).config
        steps = self.scheduler_config.get("num_train_timesteps", 1000)
        # At the precision of the timesteps that it is compared with.
        boundary = 0.0 if boundary_ratio is None else boundary_ratio * steps
        self._boundary = float(torch.tensor(boundary))
        self._has_boundary = boundary_ratio is not None

    # -- what the checkpoint is

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"boundary_ratio": _boundary_ratio(checkpoint)}

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        """Also what is there and never used."""
        idle = name == "transformer_2" and _boundary_ratio(checkpoint) is None
        return idle or super().is_absent(checkpoint, name)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        ratio = _boundary_ratio(checkpoint)
        # As in the reference, an expert without a share of the timesteps may be left out.
        needed = {"transformer": ratio is None or ratio < 1, "transformer_2": (ratio or 0) > 0}
        for name in EXPERTS:
            if needed[name]:
                checkpoint.require(name, cls.family.components[name].classes)
            if not cls.is_absent(checkpoint, name):
                checkpoint.require_width(f"{name}.in_channels", cls.latent_widths)
                checkpoint.require_width(f"{name}.text_dim", ("text_encoder.d_model",))
                _check_transformer(checkpoint, name)

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        if name not in EXPERTS:
            return super().load_component(checkpoint, name, context)
        return load_transformer(checkpoint, name, context, WanConfig, WanTransformer, wan_key_map)

    @classmethod
    def component_dtype(
        cls, checkpoint: Checkpoint, name: str, context: RankContext
    ) -> torch.dtype:
        """VAE and image encoder are kept in float32, as the reference advises."""
        return torch.float32 if name in _FLOAT32 else context.dtype

    @property
    def parameters(self) -> tuple[str, ...]:
        return EXPERT_PARAMETERS if self._has_boundary else super().parameters

    # -- the text

    def encode(self, text: str, length: int) -> Conditioning:
        """UMT5's states, zeros after the end of the text."""
        text = clean(text)
        states = self._umt5(text, length, masked=True).last_hidden_state  # [1, length, D]
        _, mask = self._umt5.tokenize(text, length)
        states = states.masked_fill(~mask.bool().unsqueeze(-1), 0)
        return {"encoder_hidden_states": states.to(self.context.dtype)}

    # -- geometry

    @property
    def size_multiple(self) -> int:
        _, down, across = self._config.patch_size
        return self.vae.pixels_per_latent * math.lcm(down, across)

    @property
    def latents_per_token(self) -> int:
        return math.prod(self._config.patch_size)

    @property
    def frame_multiple(self) -> int:
        return self.vae.frame_multiple

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        shape = (1, *self.vae.latent_shape(*size_of(params), params.num_frames))
        return torch.randn(shape, generator=generator)

    # -- experts

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{super().batch_kind(state, evaluation)} {self._expert(state, evaluation)}"

    def velocity(self, rows: Rows, latents: Tensor, timesteps: Tensor) -> Tensor:
        """What the expert for this evaluation says of `latents`, at timesteps [R, 1 or 2]."""
        state, seen = rows.states[0], ("encoder_hidden_states", "encoder_hidden_states_image")
        expert = self._expert(state, state.evaluation)
        tensors = {
            "hidden_states": latents.to(self.context.dtype),
            "timestep": timesteps,
            "rotary": self._experts[expert].rotary(latents.shape[2:]),
            **{name: rows.conditioning[name] for name in seen if name in rows.conditioning},
        }
        return self._denoisers[expert](tensors, lora=rows.lora)

    def _expert(self, state: RequestState, evaluation: int) -> str:
        name = EXPERTS[self._is_low_noise(state, evaluation)]
        return name if name in self._experts else next(iter(self._experts))

    def _is_low_noise(self, state: RequestState, evaluation: int) -> bool:
        solver, _ = state.running()
        return self._has_boundary and solver.timestep(evaluation) < self._boundary

    def guidance_at(self, state: RequestState) -> float:
        """Of the evaluation under way; whether there is any guidance is up to the first scale."""
        second = state.params.guidance_scale_2
        if second is None or not self._is_low_noise(state, state.evaluation):
            return self.cfg_scale(state.params)
        return second

    # -- decoding

    def decode_chunks(self, params: SamplingParams) -> int:
        _, frames, _, _ = self.vae.latent_shape(*size_of(params), params.num_frames)
        return self.vae.chunks(frames)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        (state,) = states
        carry = state.carry if chunk else None
        pixels, state.carry = self.vae.decode(latents, chunk, carry)
        return pixels


def _boundary_ratio(checkpoint: Checkpoint) -> float | None:
    """Where, of all timesteps, the second expert takes over; None: there is none."""
    ratio = checkpoint.options.get("boundary_ratio")
    if ratio is None:
        return None
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InvalidCheckpoint(f"model_index.json: boundary_ratio={ratio!r} must be 0 to 1")
    return float(ratio)


def _check_transformer(checkpoint: Checkpoint, name: str) -> None:
    config = WanConfig.from_dict(checkpoint.config(name))
    if config.patch_size[0] != 1:
        raise InvalidCheckpoint(
            f"{name}/config.json: patch_size={list(config.patch_size)}: each latent frame must be "
            "a patch of its own"
        )
    if config.pos_embed_seq_len is not None:
        raise InvalidCheckpoint(
            f"{name}/config.json: pos_embed_seq_len is set: a model for a first and a last frame, "
            "and requests have one picture"
        )
