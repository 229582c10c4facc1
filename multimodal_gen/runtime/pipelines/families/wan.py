"""Wan of texts and videos, after diffusers' WanPipeline and WanVideoToVideoPipeline; and TI2V, one
model for texts and images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.wan import (
    EXPERTS_DEFAULTS,
    OF_EXPERTS,
    TEXT_IMAGE_DEFAULTS,
    WAN,
)
from multimodal_gen.messages.model_info import Defaults, TaskName
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.keys import wan_key_map
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.encoders.cleaning import clean
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.wan import WanVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.wan_experts import (
    EXPERTS,
    ExpertGuidance,
    WanExperts,
    boundary_ratio,
    check_expert,
    needed_experts,
)
from multimodal_gen.runtime.pipelines.families.wan_first_frame import (
    FirstFrame,
    KeptFirstFrame,
    NoFirstFrame,
)
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import (
    PictureStart,
    noise_model_start,
    video_latents,
)
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_FLOAT32 = ("vae", "image_encoder")


class WanPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, T, h, w], and stay in float32 between evaluations."""

    family = WAN
    native = NativeTransformer(WanConfig, WanTransformer, wan_key_map)
    vae_class = WanVAE
    experts_defaults: ClassVar[Defaults] = EXPERTS_DEFAULTS
    told: ClassVar[tuple[str, ...]] = ("encoder_hidden_states", "encoder_hidden_states_image")
    """Conditioning that the transformers take as it is."""
    latent_widths: ClassVar[tuple[str, ...]] = ("vae.z_dim",)
    """Config values whose sum is the transformers' input channels."""

    def __init__(
        self, *args: Any, boundary_ratio: float | None, expand_timesteps: bool = False
    ) -> None:
        """`expand_timesteps`: the first frame may have a separate timestep, as in TI2V."""
        super().__init__(*args)
        self._umt5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.reads.in_one, self.reads.cleaned = {"text_encoder": self._umt5}, clean
        modules = {name: self.components[name] for name in EXPERTS if name in self.components}
        timesteps = self.scheduler_config.get("num_train_timesteps", 1000)
        self._experts = WanExperts(modules, boundary_ratio, timesteps)
        self._denoisers = {name: self.make_denoiser(name) for name in modules}
        self.layout = LatentLayout(
            self.vae, self.context, dtype=torch.float32, patch=self._experts.config.patch_size
        )
        self.guidance = ExpertGuidance(self._experts)
        latents = partial(video_latents, self.layout)
        self.start = PictureStart(self.layout, noise_model_start, picture=latents)
        self._first_frame: FirstFrame = NoFirstFrame()
        if expand_timesteps:
            self._first_frame = KeptFirstFrame(self.layout)

    # -- properties of the checkpoint

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        expand = bool(checkpoint.options.get("expand_timesteps"))
        return {"boundary_ratio": boundary_ratio(checkpoint), "expand_timesteps": expand}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        if checkpoint.options.get("expand_timesteps"):
            return TEXT_IMAGE_DEFAULTS
        experts = checkpoint.options.get("boundary_ratio") is not None
        return cls.experts_defaults if experts else super().default_params(checkpoint)

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        """True also for a component that is present but never used."""
        idle = name == "transformer_2" and boundary_ratio(checkpoint) is None
        return idle or super().is_absent(checkpoint, name)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        for name in needed_experts(checkpoint):
            checkpoint.require(name, cls.family.components[name].classes)
        for name in EXPERTS:
            if not cls.is_absent(checkpoint, name):
                checkpoint.require_width(f"{name}.in_channels", cls.latent_widths)
                checkpoint.require_width(f"{name}.text_dim", ("text_encoder.d_model",))
                check_expert(cls.native.config_class, checkpoint, name)

    @classmethod
    def dtype_of(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> torch.dtype:
        """VAE and image encoder stay in float32, as the reference recommends."""
        return torch.float32 if name in _FLOAT32 else context.dtype

    @property
    def parameters(self) -> tuple[str, ...]:
        known = super().parameters + (OF_EXPERTS if self._experts.divided else ())
        return tuple(each for each in known if not (self._keeps_frame and each == "video_path"))

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return ("text-to-video", "image-to-video") if self._keeps_frame else super().tasks

    @property
    def _keeps_frame(self) -> bool:
        """True for a model for both texts and images."""
        return isinstance(self._first_frame, KeptFirstFrame)

    # -- generation

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """UMT5's states, with zeros after the end of the text."""
        text = clean(text)
        states = self._umt5(text, length, masked=True).last_hidden_state  # [1, length, D]
        _, mask = self._umt5.tokenize(text, length)
        states = states.masked_fill(~mask.bool().unsqueeze(-1), 0)
        return {"encoder_hidden_states": states.to(self.context.dtype)}

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        self._first_frame.prepare(state)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{super().batch_kind(state, evaluation)} {self._experts.name(state, evaluation)}"

    def denoisers_now(self, states: Sequence[RequestState]) -> tuple[str, ...]:
        return (self._experts.name(states[0], states[0].evaluation),)

    def predict(self, rows: Rows) -> Tensor:
        state, told = rows.states[0], rows.conditioning
        expert = self._experts.name(state, state.evaluation)
        latents, timesteps = self._first_frame.inputs(rows)
        tensors = {
            "hidden_states": latents.to(self.context.dtype),
            "timestep": timesteps,
            "rotary": self._experts.modules[expert].rotary(latents.shape[2:]),
            **{name: told[name] for name in self.told if name in told},
        }
        return self._denoisers[expert](tensors, lora=rows.lora)


PIPELINE = WanPipeline
