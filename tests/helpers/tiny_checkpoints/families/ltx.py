"""LTX-Video: packed latents of a strongly compressing VAE, here 8x in space and 4x in time."""

from functools import partial

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    SchedulerMixin,
)

from .. import encoders
from ..case import PICTURE, VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..schedulers import Config
from ..tokenizers import t5_tokenizer

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 1024,
    "base_shift": 0.95,
    "max_image_seq_len": 4096,
    "max_shift": 2.05,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.1,
    "use_dynamic_shifting": True,
}

HEAD_DIM = 8
CHANNELS = 16
_CONDITIONED = {
    "decoder_block_out_channels": (16, 32),
    "decoder_layers_per_block": (1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True),
    "decoder_inject_noise": (False, False, False),
    "upsample_residual": (True, True),
    "upsample_factor": (2, 2),
    "timestep_conditioning": True,
}
"""The decoder as since version 0.9.1."""


def ltx_pipeline(
    scheduler: SchedulerMixin, *, heads: int, timestep_conditioning: bool = False
) -> LTXPipeline:
    vae = AutoencoderKLLTXVideo(
        **{
            "latent_channels": CHANNELS,
            "block_out_channels": (8, 8, 16, 16),
            "decoder_block_out_channels": (8, 8, 16, 16),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
            "spatio_temporal_scaling": (True, True, False, False),
            "decoder_spatio_temporal_scaling": (True, True, False, False),
            "patch_size": 2,
            **(_CONDITIONED if timestep_conditioning else {}),
        }
    )
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, CHANNELS))
    return LTXPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            cross_attention_dim=heads * HEAD_DIM,
            num_layers=2,
            caption_channels=encoders.WIDTH,
        ),
    )


CHECKPOINTS = {"ltx": TinyCheckpoint(ltx_pipeline, SCHEDULER, call={"num_frames": 5})}
VARIANTS = {
    "ltx-0.9.1": TinyCheckpoint(partial(ltx_pipeline, timestep_conditioning=True), SCHEDULER),
}
CASES = {
    ("ltx", "text-to-video"): Case("ltx", None, VIDEO),
    ("ltx", "image-to-video"): Case("ltx", LTXImageToVideoPipeline, PICTURE | VIDEO),
}
