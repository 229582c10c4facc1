"""Sana, after diffusers' SanaPipeline.

Images are made at the requested size, as with `use_resolution_binning=False` there.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import SanaPipeline as Reference
from torch import Tensor

from multimodal_gen.configs.families.sana import SANA
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.cutting import Framed
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.prompts import text_of
from multimodal_gen.runtime.pipelines.trained_size import trained_size
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_INSTRUCTION: list[str] = (
    inspect.signature(Reference.__call__).parameters["complex_human_instruction"].default
)
"""Instruction for the language model before the prompt; the reference's default."""


class SanaPipeline(ComposedPipeline):
    """Gemma's states; latents stay in float32 between evaluations."""

    family = SANA
    vae_class = ImageVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.caption_channels": ("text_encoder.hidden_size",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        named = self.components["tokenizer"], self.components["text_encoder"]
        self._gemma = TextEncoder(*named, padding_side="right")
        self._denoiser = self.make_denoiser("transformer")
        self._config = self.components["transformer"].config
        self.layout = LatentLayout(
            self.vae,
            self.context,
            dtype=torch.float32,
            patch=(self._config.patch_size,) * 2,
            multiple=self.family.size_multiple,
        )
        self.guidance = ClassifierFreeGuidance(float32=True)
        self._instruction = "\n".join(_INSTRUCTION)
        if named[0] is not None:
            framed = Framed(named[0], self._instruction.__add__, self._instruction_length - 2)
            self.reads.in_one, self.reads.cleaned = {"text_encoder": framed}, _cleaned

    @cached_property
    def _instruction_length(self) -> int:
        """Its tokens."""
        return len(self.components["tokenizer"].encode(self._instruction))

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return trained_size(cls.family, checkpoint, "transformer")

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = _cleaned(text_of(state.params, branch))
        length = state.params.max_sequence_length
        assert length is not None
        instructed = branch == "positive"
        key = (text, length, instructed)
        return self.prompts.remembered(state, key, lambda: self._encode(text, length, instructed))

    def _encode(self, text: str, length: int, instructed: bool) -> Conditioning:
        """Gemma's states of `length` tokens: the first one, and the last of those encoded.

        This drops all of an instruction but its first token, and as much of its end as the
        reference keeps.
        """
        encoded = length
        if instructed:
            text = self._instruction + text
            encoded += self._instruction_length - 2
        states = self._gemma(text, encoded, masked=True)[0]  # [1, encoded, D]
        _, mask = self._gemma.tokenize(text, encoded)
        first, end = slice(0, 1), slice(encoded - length + 1, encoded)
        states, mask = (torch.cat((x[:, first], x[:, end]), dim=1) for x in (states, mask))
        return {
            "encoder_hidden_states": states.to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    def predict(self, rows: Rows) -> Tensor:
        timesteps = rows.timesteps * self._config.timestep_scale
        tensors = {"latents": rows.latents, "timestep": timesteps, **rows.conditioning}
        prediction = self._denoiser(tensors, lora=rows.lora)
        return prediction[:, : rows.latents.shape[1]]


def _cleaned(text: str) -> str:
    return text.lower().strip()


PIPELINE = SanaPipeline
