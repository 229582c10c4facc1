"""Krea 2: one stream with few keys, over the states of several layers of a Qwen3-VL."""

from functools import partial

from diffusers import AutoencoderKLQwenImage, Krea2Pipeline, Krea2Transformer2DModel, SchedulerMixin
from transformers import Qwen3VLModel

from ..case import Case
from ..checkpoint import GUIDED, TinyCheckpoint
from ..encoders import WIDTH
from ..qwen3_vl import qwen3_vl_config
from ..schedulers import FLUX_DEV, Config
from .qwen_image import LATENT_CHANNELS, qwen2_tokenizer, qwen_image_vae

SCHEDULER: Config = {
    **FLUX_DEV,
    "max_image_seq_len": 6400,
    "shift": 1.0,
    "time_shift_type": "exponential",
}
HEAD_DIM = 8


def krea2_pipeline(
    scheduler: SchedulerMixin, *, heads: int, is_distilled: bool = False
) -> Krea2Pipeline:
    vae: AutoencoderKLQwenImage = qwen_image_vae(
        False, True, True, base_dim=4, dim_mult=[1, 2, 2, 2]
    )
    return Krea2Pipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=Qwen3VLModel(qwen3_vl_config(layers=4)),
        tokenizer=qwen2_tokenizer(),
        transformer=Krea2Transformer2DModel(
            in_channels=4 * LATENT_CHANNELS,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=2 * heads,
            num_key_value_heads=heads,
            intermediate_size=3 * WIDTH,
            timestep_embed_dim=32,
            text_hidden_dim=WIDTH,
            num_text_layers=3,
            text_num_attention_heads=4,
            text_num_key_value_heads=4,
            text_intermediate_size=2 * WIDTH,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 2, 2),
        ),
        text_encoder_select_layers=[0, 2, 3],
        is_distilled=is_distilled,
    )


CHECKPOINTS = {"krea2": TinyCheckpoint(krea2_pipeline, SCHEDULER, GUIDED)}
VARIANTS = {"krea2-turbo": TinyCheckpoint(partial(krea2_pipeline, is_distilled=True), SCHEDULER)}
CASES = {("krea2", "text-to-image"): Case("krea2")}
