"""Stable Diffusion 1 and 2, after diffusers' StableDiffusionPipeline."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.stable_diffusion import STABLE_DIFFUSION
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults, TaskName
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.models.schedulers.registry import solver_class
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.few_steps import few_step_solver, few_steps
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.start.unet_start import UNetStart
from multimodal_gen.runtime.pipelines.trained_size import trained_size
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class StableDiffusionPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, h, w]."""

    family = STABLE_DIFFUSION
    denoiser_name = "unet"
    supports_control = True
    vae_class = ImageVAE
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unet.cross_attention_dim": ("text_encoder.hidden_size",),
    }
    added_conditioning: ClassVar[tuple[str, ...]] = ()
    corrections: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "StableDiffusionPipeline": {"steps_offset": 1, "clip_sample": False},
        "StableDiffusionImg2ImgPipeline": {"steps_offset": 1, "clip_sample": False},
        "StableDiffusionInpaintPipeline": {"steps_offset": 1, "skip_prk_steps": True},
    }
    """Corrections of wrong scheduler settings in old checkpoints, as in diffusers' class."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._clip = WeightedEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._denoiser = self.make_denoiser("unet", self.added_conditioning)
        self._sees_mask = self.components["unet"].config.in_channels > self.vae.channels
        multiple = self.family.size_multiple
        self.layout = LatentLayout(self.vae, self.context, multiple=multiple)
        self.guidance = ClassifierFreeGuidance()
        self.reads.in_chunks = {"text_encoder": self._clip}
        self.start = UNetStart(self.layout, shows_mask=self._sees_mask)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if checkpoint.config("unet").get("time_cond_proj_dim") is not None:
            raise InvalidCheckpoint(
                "unet/config.json: time_cond_proj_dim: latent consistency models are not supported"
            )
        width, latents = (
            checkpoint.config(name).get(key, 4)
            for name, key in (("unet", "in_channels"), ("vae", "latent_channels"))
        )
        if isinstance(latents, int) and width not in (latents, 2 * latents + 1):
            raise InvalidCheckpoint(
                f"config.json: unet.in_channels={width} must match vae.latent_channels={latents}"
            )

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        defaults = trained_size(cls.family, checkpoint, "unet")
        configs = checkpoint.scheduler_config(), checkpoint.config("unet")
        return few_steps(defaults, *configs, _file(checkpoint))

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        config = few_step_solver(super().solver_config(checkpoint), _file(checkpoint))
        # Includes the file's settings for other classes, which a request may choose.
        known = {*config, *inspect.signature(solver_class(config)).parameters}
        corrections = cls.corrections.get(checkpoint.pipeline_class, {})
        return config | {key: value for key, value in corrections.items() if key in known}

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """A UNet with image and mask inputs supports nothing but inpainting."""
        return ("inpainting",) if self._sees_mask else self.family.tasks

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        prompt = self.reads.of(state, branch)
        return self.prompts.remembered(state, prompt, lambda: self._encode(prompt))

    def _encode(self, prompt: ReadPrompt) -> Conditioning:
        masked = bool(getattr(self.components["text_encoder"].config, "use_attention_mask", False))
        encoded = self._clip.in_chunks(prompt, lambda output: output[0], masked=masked)
        return {"encoder_hidden_states": encoded.states.to(self.context.dtype)}

    def predict(self, rows: Rows) -> Tensor:
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        if self._sees_mask:
            shown = tensors.pop("mask"), tensors.pop("masked_latents")
            tensors["latents"] = torch.cat((rows.latents, *shown), dim=1)
        with rows.controlled(tensors) as controlled:
            return self._denoiser(controlled, lora=rows.lora)


def _file(checkpoint: Checkpoint) -> str:
    """Name of the file that the UNet's weights are from; "" for a folder."""
    return checkpoint.files["unet"].header.path.name if "unet" in checkpoint.files else ""


PIPELINE = StableDiffusionPipeline
