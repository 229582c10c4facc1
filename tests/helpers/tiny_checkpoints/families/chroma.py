"""Chroma: FLUX's blocks, modulated by one approximator, and T5."""

from functools import wraps
from typing import Any

from diffusers import (
    ChromaImg2ImgPipeline,
    ChromaInpaintPipeline,
    ChromaPipeline,
    ChromaTransformer2DModel,
    SchedulerMixin,
)

from .. import encoders
from ..case import INPAINTING, PICTURE, STRENGTH, Case
from ..checkpoint import GUIDED, TinyCheckpoint
from ..schedulers import FLUX_DEV
from ..tokenizers import t5_tokenizer
from ..vaes import flux_vae
from .flux import HEAD_DIM


def chroma_pipeline(scheduler: SchedulerMixin, *, heads: int) -> ChromaPipeline:
    return ChromaPipeline(
        scheduler=scheduler,
        vae=flux_vae(),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=ChromaTransformer2DModel(
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=heads,
            joint_attention_dim=encoders.WIDTH,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=32,
            approximator_hidden_dim=48,
            approximator_layers=2,
        ),
    )


class InpaintPipeline(ChromaInpaintPipeline):
    """As meant: diffusers 0.42's own reads an entry that the transformer's config lacks."""

    @wraps(ChromaInpaintPipeline.__call__)
    def __call__(self, *args: Any, **call: Any) -> Any:
        self.transformer.register_to_config(guidance_embeds=False)
        return super().__call__(*args, **call)


CHECKPOINTS = {"chroma": TinyCheckpoint(chroma_pipeline, FLUX_DEV, GUIDED)}
_GUIDED = {"negative_prompt": "blurry", "max_sequence_length": 32}
CASES = {
    ("chroma", "text-to-image"): Case("chroma", None, _GUIDED),
    ("chroma", "image-to-image"): Case(
        "chroma", ChromaImg2ImgPipeline, _GUIDED | PICTURE | STRENGTH
    ),
    ("chroma", "inpainting"): Case("chroma", InpaintPipeline, _GUIDED | INPAINTING | STRENGTH),
}
