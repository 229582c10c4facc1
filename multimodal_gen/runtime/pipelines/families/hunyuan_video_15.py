"""HunyuanVideo 1.5, after diffusers' HunyuanVideo15Pipeline and
HunyuanVideo15ImageToVideoPipeline."""

from __future__ import annotations

import inspect
import re
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch
from diffusers import HunyuanVideo15Pipeline as Reference
from torch import Tensor

from multimodal_gen.checkpoints.files import check_config, inside, read_json
from multimodal_gen.configs.families.hunyuan_video_15 import HUNYUAN_VIDEO_15
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults, TaskName
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.cutting import Framed
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.hunyuan_video_15 import HunyuanVideo15VAE
from multimodal_gen.runtime.models.vaes.input_images import cropped, fit_image
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import sigmas_to_zero
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.pipelines.prompts import text_of
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_INSTRUCTION: str = (
    inspect.signature(Reference._get_mllm_prompt_embeds).parameters["system_message"].default
)
"""Instruction for the language model; the reference's default."""
_SIGLIP = ("feature_extractor", "image_encoder")
_BEFORE_PROMPT, _LONGEST = 108, 1000  # tokens of the instruction, and of the prompt
_LAYER = -3
"""Index of the hidden states used of Qwen: those before its last two layers."""
_GLYPHS = 256  # bytes of texts to be drawn
_SEEN = 729  # tokens of an image
_QUOTED = re.compile(r'"(.*?)"|“(.*?)”')
_GUIDER = "guider/guider_config.json"
_LARGE = 960  # target_size of models for 720p


class HunyuanVideo15Pipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, T, h, w]; beside them the model sees those of a first
    frame."""

    family = HUNYUAN_VIDEO_15
    vae_class = HunyuanVideo15VAE
    tokens_beside = ("image_embeds", "encoder_hidden_states_2")
    widths: ClassVar = {
        "transformer.text_embed_dim": ("text_encoder.hidden_size",),
        "transformer.text_embed_2_dim": ("text_encoder_2.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._qwen = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        framed = Framed(self.components["tokenizer"], self._framed, _BEFORE_PROMPT, _LONGEST)
        self.reads.in_one = {"text_encoder": framed}
        self._byt5 = TextEncoder(self.components["tokenizer_2"], self.components["text_encoder_2"])
        self._denoiser = self.make_denoiser("transformer")
        config = self.components["transformer"].config
        patch = (config.patch_size_t, config.patch_size, config.patch_size)
        self.layout = LatentLayout(self.vae, self.context, patch=patch)
        self.guidance = ClassifierFreeGuidance()

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        width, latents = (
            checkpoint.config(name).get(key)
            for name, key in (("transformer", "in_channels"), ("vae", "latent_channels"))
        )
        if isinstance(latents, int) and width != 2 * latents + 1:
            raise InvalidCheckpoint(
                f"transformer/config.json: in_channels={width} must be {2 * latents + 1}: latents, "
                "those of a first frame, and its mask"
            )

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """The scale is that of the checkpoint's guider, the size that of its videos of 16:9."""
        values: dict[str, Any] = {}
        if inside(checkpoint.folder, _GUIDER).is_file():
            guider = check_config(read_json(checkpoint.folder, _GUIDER), _GUIDER)
            values["guidance_scale"] = guider.get("guidance_scale", 1.0)
        if checkpoint.config("transformer").get("target_size") == _LARGE:
            values |= {"width": 1280, "height": 720}
        return msgspec.structs.replace(cls.family.defaults, **values)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return ("image-to-video",) if _SIGLIP[-1] in self.components else ("text-to-video",)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        encoded = self.prompts.remembered(state, text, lambda: self._encode(text))
        return {**encoded, "image_embeds": self._seen(state)}

    def _framed(self, text: str) -> str:
        """The prompt's chat as text."""
        chat = [
            {"role": "system", "content": _INSTRUCTION},
            {"role": "user", "content": text or " "},
        ]
        told: str = self.components["tokenizer"].apply_chat_template(
            chat, add_generation_prompt=True, tokenize=False
        )
        return told

    def _encode(self, text: str) -> Conditioning:
        """Qwen's states after the instruction, and ByT5's of what is quoted, each with a mask."""
        told = self._framed(text)
        tokens = _LONGEST + _BEFORE_PROMPT
        states = self._qwen(told, tokens, masked=True, hidden_states=True).hidden_states[_LAYER]
        _, mask = self._qwen.tokenize(told, tokens)
        glyphs, shown = self._glyphs(text)
        return {
            "encoder_hidden_states": states[:, _BEFORE_PROMPT:].to(self.context.dtype),
            "encoder_attention_mask": mask[:, _BEFORE_PROMPT:],
            "encoder_hidden_states_2": glyphs.to(self.context.dtype),
            "encoder_attention_mask_2": shown,
        }

    def _glyphs(self, text: str) -> tuple[Tensor, Tensor]:
        """States [1, 256, D] of the texts to be drawn, and their mask; zeros if there are none."""
        quoted = dict.fromkeys(first or second for first, second in _QUOTED.findall(text))
        told = "".join(f'Text "{each}". ' for each in quoted)
        states = self._byt5(told, _GLYPHS, masked=True)[0]
        _, mask = self._byt5.tokenize(told, _GLYPHS)
        return (states, mask) if quoted else (torch.zeros_like(states), torch.zeros_like(mask))

    def _seen(self, state: RequestState) -> Tensor:
        """SigLIP's states [1, S, D] of the first frame; zeros for a model of texts."""
        if _SIGLIP[-1] not in self.components:
            width = self.components["transformer"].config.image_embed_dim
            return torch.zeros(
                1, _SEEN, width, device=self.context.device, dtype=self.context.dtype
            )
        processor, encoder = (self.components[name] for name in _SIGLIP)
        picture = cropped(state.pictures["image"], *size_of(state.params))
        inputs = processor(images=picture, return_tensors="pt")
        pixels = copied(inputs["pixel_values"], encoder.device, encoder.dtype)
        states: Tensor = encoder(pixel_values=pixels).last_hidden_state
        return states.to(self.context.dtype)

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        if "image" not in state.pictures:
            return
        size = size_of(state.params)
        pixels = fit_image(np.asarray(cropped(state.pictures["image"], *size)), *size)
        _, noise = state.running()
        frame = self.layout.encode(pixels.unsqueeze(2)).to(noise.dtype)
        shown = torch.cat((frame, torch.ones_like(frame[:, :1])), dim=1)
        for conditioning in state.conditioning.values():
            conditioning["first_frame"] = shown

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        return {"sigmas": sigmas_to_zero(params), "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        told = dict(rows.conditioning)
        latents = rows.latents
        beside = latents.new_zeros(len(latents), latents.shape[1] + 1, *latents.shape[2:])
        if (frame := told.pop("first_frame", None)) is not None:
            beside[:, :, :1] = frame
        tensors = {
            "latents": torch.cat((latents, beside), dim=1),
            "timestep": rows.timesteps.to(latents.dtype),
            **told,
        }
        return self._denoiser(tensors, lora=rows.lora)


PIPELINE = HunyuanVideo15Pipeline
