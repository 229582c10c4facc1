"""CogVideoX: one sequence of text and video. The 2B model adds positions, the others rotate."""

from functools import partial
from typing import Any

from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
    SchedulerMixin,
)

from .. import encoders
from ..case import STRENGTH, VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import clip
from ..schedulers import Config
from ..tokenizers import t5_tokenizer

SCHEDULER: Config = {
    "_class_name": "CogVideoXDDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
}
SCHEDULER_5B: Config = {
    **SCHEDULER,
    "_class_name": "CogVideoXDPMScheduler",
    "snr_shift_scale": 1.0,
}

HEAD_DIM = 16
CHANNELS = 8
TEXT_LENGTH = 24
"""A short one, so that the padding, which is attended to, does not drown the prompt."""
COGVIDEOX_5B: dict[str, Any] = {"use_rotary_positional_embeddings": True}
COGVIDEOX_1_5: dict[str, Any] = {
    **COGVIDEOX_5B,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_width": 24,
    "sample_height": 16,
}
"""It takes no video that is larger than those it was trained with."""


def cogvideox_pipeline(
    scheduler: SchedulerMixin, *, heads: int, **transformer: Any
) -> CogVideoXPipeline:
    return CogVideoXPipeline(
        scheduler=scheduler,
        vae=AutoencoderKLCogVideoX(
            latent_channels=CHANNELS,
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            sample_height=64,
            sample_width=96,
            scaling_factor=0.7,
        ),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            time_embed_dim=32,
            text_embed_dim=encoders.WIDTH,
            num_layers=2,
            **{
                "sample_width": 12,
                "sample_height": 8,
                "sample_frames": 9,
                "max_text_seq_length": TEXT_LENGTH,
                **transformer,
            },
        ),
    )


CHECKPOINTS = {
    "cogvideox": TinyCheckpoint(
        cogvideox_pipeline,
        SCHEDULER,
        call={"num_frames": 9, "max_sequence_length": TEXT_LENGTH},
    ),
}
VARIANTS = {
    "cogvideox-5b": TinyCheckpoint(partial(cogvideox_pipeline, **COGVIDEOX_5B), SCHEDULER_5B),
    "cogvideox-1.5": TinyCheckpoint(partial(cogvideox_pipeline, **COGVIDEOX_1_5), SCHEDULER_5B),
}
CASES = {
    ("cogvideox", "text-to-video"): Case(
        "cogvideox", None, VIDEO | {"max_sequence_length": TEXT_LENGTH}
    ),
    ("cogvideox", "video-to-video"): Case(
        "cogvideox-5b",
        CogVideoXVideoToVideoPipeline,
        {"video": clip(9, 80, 70), "max_sequence_length": TEXT_LENGTH, **STRENGTH},
    ),
}
