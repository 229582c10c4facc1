"""HiDream-I1, after diffusers' HiDreamImagePipeline.

Images are made at the requested size; there it is scaled to an area of 1024 x 1024 pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.hidream import HIDREAM
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults, Limits
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import linear_shift
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.pipelines.prompts import text_of
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_CLIPS = ("text_encoder", "text_encoder_2")
_LATENT = 8  # pixels
_LLAMA = "encoder_hidden_states_llama3"


class HiDreamPipeline(ComposedPipeline):
    """CLIP's pooled states, T5's, and those of all layers of Llama."""

    family = HIDREAM
    vae_class = ImageVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.text_emb_dim": (
            "text_encoder.projection_dim",
            "text_encoder_2.projection_dim",
        ),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if (llama := self.components["tokenizer_4"]) is not None:
            llama.pad_token = llama.eos_token
        names = ("", "_2", "_3", "_4")
        self._clip, self._clip_2, self._t5, self._llama = (
            TextEncoder(self.components[f"tokenizer{n}"], self.components[f"text_encoder{n}"])
            for n in names
        )
        encoders = (self._clip, self._clip_2, self._t5, self._llama)
        self.reads.in_one = {
            f"text_encoder{n}": each for n, each in zip(names, encoders, strict=True)
        }
        self._transformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        patch = self._transformer.config.patch_size
        self.layout = LatentLayout(self.vae, self.context, patch=(patch, patch))
        self.guidance = ClassifierFreeGuidance()

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Images of as many tokens as the transformer has positions for."""
        defaults = cls.family.defaults
        most = checkpoint.config("transformer").get("max_resolution")
        if not isinstance(most, list) or not all(isinstance(side, int) for side in most):
            return defaults
        height, width = (_LATENT * side for side in most)
        return msgspec.structs.replace(defaults, width=width, height=height)

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        """Load Llama without its last layer, which would predict words."""
        loaded = super().load_component(checkpoint, name, context)
        return loaded.model if name == "text_encoder_4" else loaded

    @property
    def limits(self) -> Limits:
        """The transformer has so many positions."""
        most = self._transformer.max_seq * self.layout.size_multiple**2
        own = min(self.family.limits.max_pixels, most)
        return msgspec.structs.replace(self.family.limits, max_pixels=own)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text, length = text_of(state.params, branch), state.params.max_sequence_length
        assert length is not None
        return self.prompts.remembered(state, (text, length), lambda: self._encode(text, length))

    def _encode(self, text: str, length: int) -> Conditioning:
        pooled = [clip(text, length)[0] for clip in (self._clip, self._clip_2)]
        t5 = self._t5(text, length, masked=True)[0]  # [1, length, D]
        llama = self._llama(text, length, masked=True, hidden_states=True).hidden_states[1:]
        dtype = self.context.dtype
        return {
            "pooled_embeds": torch.cat(pooled, dim=-1).to(dtype),
            "encoder_hidden_states_t5": t5.to(dtype),
            _LLAMA: torch.stack(llama, dim=1).to(dtype),  # [1, layers, length, D]
        }

    def latent_tokens(self, state: RequestState) -> int:
        """The transformer pads images that are not square to the longest sequence."""
        height, width = size_of(state.params)
        return super().latent_tokens(state) if height == width else self._transformer.max_seq

    def text_tokens(self, state: RequestState) -> int:
        """T5's, and Llama's twice: in each block, and in all."""
        return max(3 * told[_LLAMA].shape[2] for told in state.conditioning.values())

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        return {"mu": linear_shift({}, self._transformer.max_seq)}

    def predict(self, rows: Rows) -> Tensor:
        told = dict(rows.conditioning)
        llama = told.pop(_LLAMA).transpose(0, 1)
        tensors = {"latents": rows.latents, "timesteps": rows.timesteps, _LLAMA: llama, **told}
        return -self._denoiser(tensors, lora=rows.lora)


PIPELINE = HiDreamPipeline
