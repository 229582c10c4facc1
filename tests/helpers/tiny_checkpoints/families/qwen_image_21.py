"""Qwen-Image 2.1: one stream after its prefix, a VAE with an alpha channel, a Qwen3-VL."""

from functools import partial
from pathlib import Path

from diffusers import (
    AutoencoderKLQwenImage21,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    SchedulerMixin,
)
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from ..case import PICTURE, Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..qwen3_vl import PATCH, qwen3_vl_config
from ..schedulers import FLUX_DEV, Config
from .qwen_image import qwen2_tokenizer

SCHEDULER: Config = {
    **FLUX_DEV,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
}
HEAD_DIM = 16
LATENT_CHANNELS = 4
SIDE = 96
"""Input images are shown at the area of a square of so many pixels a side."""
_CHAT = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content[0].text + '<|im_end|>' + '\\n' }}
{%- endfor %}
"""


class Qwen3PictureProcessor(Qwen3VLProcessor):
    """Without its part for videos, which can't be made where there is no torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def qwen3_processor(folder: Path) -> Qwen3PictureProcessor:
    """The processor that was saved in `folder`."""
    return Qwen3PictureProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder),
        tokenizer=Qwen2Tokenizer.from_pretrained(folder),
        chat_template=_CHAT,
    )


def qwen_image_21_pipeline(
    scheduler: SchedulerMixin, *, heads: int, sample_sigmas: list[float] | None = None
) -> QwenImage21Pipeline:
    return QwenImage21Pipeline(
        scheduler=scheduler,
        vae=AutoencoderKLQwenImage21(
            base_dim=2,
            decoder_base_dim=2,
            z_dim=LATENT_CHANNELS,
            dim_mult=[1, 2, 4, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True, True],
            latents_mean=[-0.7, 0.1, 0.9, 0.4],
            latents_std=[2.8, 1.4, 2.3, 1.1],
        ),
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config(layers=2)),
        processor=Qwen3PictureProcessor(
            image_processor=Qwen2VLImageProcessorPil(
                size={"shortest_edge": 4 * PATCH**2, "longest_edge": 256 * PATCH**2},
                patch_size=PATCH,
            ),
            tokenizer=qwen2_tokenizer(),
            chat_template=_CHAT,
        ),
        transformer=QwenImage21Transformer2DModel(
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=heads,
            context_in_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
        sample_sigmas=sample_sigmas,
    )


CHECKPOINTS = {
    "qwenimage21": TinyCheckpoint(
        qwen_image_21_pipeline,
        SCHEDULER,
        ("prompt", "seed", "steps", "true guidance"),
        gains={"attn.to_v.": 4.0},  # a short prompt is a small part of what attention averages
    ),
}
VARIANTS = {
    "qwenimage21-turbo": TinyCheckpoint(
        partial(qwen_image_21_pipeline, sample_sigmas=[1.0, 0.8, 0.3]), SCHEDULER
    ),
}
_TWO = {"image": [PICTURE["image"], picture(50, 140)]}
CASES = {
    ("qwen_image_21", "text-to-image"): Case("qwenimage21", changes={"guidance_scale": None}),
    ("qwen_image_21", "image-edit"): Case(
        "qwenimage21",
        changes={**_TWO, "guidance_scale": None},
        stock_call={"output_resolution": SIDE},
        patches=(
            ("multimodal_gen.runtime.pipelines.families.qwen_image_21", "PICTURE_AREA", SIDE**2),
        ),
    ),
}
