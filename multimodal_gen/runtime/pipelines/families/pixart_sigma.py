"""PixArt-Sigma, after diffusers' PixArtSigmaPipeline. A small family: a good example for new ones.

Images are made at the requested size, as with `use_resolution_binning=False` there.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from multimodal_gen.configs.families.pixart_sigma import PIXART_SIGMA
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.trained_size import trained_size
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class PixArtSigmaPipeline(ComposedPipeline):
    """T5's states, and a transformer that predicts the noise."""

    family = PIXART_SIGMA
    vae_class = ImageVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.caption_channels": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._t5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.reads.in_one, self.reads.cleaned = {"text_encoder": self._t5}, _cleaned
        self._denoiser = self.make_denoiser("transformer")
        patch = self.components["transformer"].config.patch_size
        self.layout = LatentLayout(self.vae, self.context, patch=(patch, patch))
        self.guidance = ClassifierFreeGuidance()

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return trained_size(cls.family, checkpoint, "transformer")

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states, and a mask of those that are not padding."""
        text = _cleaned(text)
        states = self._t5(text, length, masked=True)[0]  # [1, length, D]
        _, mask = self._t5.tokenize(text, length)
        return {
            "encoder_hidden_states": states.to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    def predict(self, rows: Rows) -> Tensor:
        """Predict the noise; the variances that most checkpoints also predict are not used by any
        solver."""
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        prediction = self._denoiser(tensors, lora=rows.lora)
        return prediction[:, : rows.latents.shape[1]]


def _cleaned(text: str) -> str:
    return text.lower().strip()


PIPELINE = PixArtSigmaPipeline
