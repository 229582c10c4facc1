"""LTX-2 and 2.3: one transformer of video and sound, here 8x in space and 4x in time."""

from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    SchedulerMixin,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE

from .. import llms
from ..case import PICTURE, VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..llm_tokenizers import gemma_tokenizer
from ..schedulers import Config

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
DISTILLED: Config = {**SCHEDULER, "shift_terminal": None, "use_dynamic_shifting": False}

HEAD_DIM = 8
AUDIO_HEAD_DIM = 4
CHANNELS = 16
_BINS = 16
_REGISTERS = 8
_NEWER = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
    "rope_type": "split",
}
SKIPPING = {"spatio_temporal_guidance_blocks": [1]}
"""Where the reference's default has the 28th of 48 blocks."""


def ltx2_pipeline(scheduler: SchedulerMixin, *, heads: int, newer: bool = False) -> LTX2Pipeline:
    """`newer`: as in 2.3."""
    video, audio = heads * HEAD_DIM, heads * AUDIO_HEAD_DIM
    return LTX2Pipeline(
        scheduler=scheduler,
        vae=_vae(),
        audio_vae=_audio_vae(),
        text_encoder=llms.gemma3(),
        tokenizer=gemma_tokenizer(),
        connectors=_connectors(heads, newer=newer),
        transformer=LTX2VideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            cross_attention_dim=video,
            vae_scale_factors=(4, 8, 8),
            audio_in_channels=CHANNELS,
            audio_out_channels=CHANNELS,
            audio_num_attention_heads=heads,
            audio_attention_head_dim=AUDIO_HEAD_DIM,
            audio_cross_attention_dim=audio,
            num_layers=2,
            caption_channels=WIDTH,
            **(_NEWER if newer else {}),
        ),
        vocoder=_newer_vocoder() if newer else _vocoder(LTX2Vocoder),
    )


def _vae() -> AutoencoderKLLTX2Video:
    vae = AutoencoderKLLTX2Video(
        latent_channels=CHANNELS,
        block_out_channels=(8, 16),
        down_block_types=("LTX2VideoDownBlock3D",) * 2,
        layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        downsample_type=("spatiotemporal", "spatiotemporal"),
        decoder_block_out_channels=(16, 32),
        decoder_layers_per_block=(1, 1, 1),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False, False, False),
        upsample_type=("spatiotemporal", "spatiotemporal"),
        upsample_residual=(True, True),
        upsample_factor=(2, 2),
        decoder_causal=False,
        patch_size=2,
    )
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, CHANNELS))
    return vae


def _audio_vae() -> AutoencoderKLLTX2Audio:
    vae = AutoencoderKLLTX2Audio(
        base_channels=CHANNELS,
        ch_mult=(1, 1, 2),
        num_res_blocks=1,
        latent_channels=4 * CHANNELS // _BINS,
        mel_bins=_BINS,
    )
    vae.latents_mean.copy_(torch.linspace(-0.1, 0.3, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.7, 1.3, CHANNELS))
    return vae


def _connectors(heads: int, *, newer: bool) -> LTX2TextConnectors:
    video, audio = heads * HEAD_DIM, heads * AUDIO_HEAD_DIM
    sizes: dict[str, Any] = {
        "video_connector_num_attention_heads": heads if newer else 4,
        "video_connector_attention_head_dim": HEAD_DIM,
        "audio_connector_num_attention_heads": heads if newer else 4,
        "audio_connector_attention_head_dim": AUDIO_HEAD_DIM if newer else WIDTH // 4,
        "rope_type": "split" if newer else "interleaved",
    }
    for stream in ("video", "audio"):
        sizes[f"{stream}_connector_num_layers"] = 1
        sizes[f"{stream}_connector_num_learnable_registers"] = _REGISTERS
        sizes[f"{stream}_gated_attn"] = newer
    if newer:
        sizes |= {
            "per_modality_projections": True,
            "video_hidden_dim": video,
            "audio_hidden_dim": audio,
            "proj_bias": True,
        }
    return LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=llms.GEMMA3_LAYERS + 1, **sizes
    )


def _vocoder(kind: Any, **options: Any) -> Any:
    """Eight samples for each of 100 spectra per second."""
    return kind(
        in_channels=2 * _BINS,
        hidden_channels=16,
        upsample_kernel_sizes=[8, 4],
        upsample_factors=[4, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3]],
        **{"output_sampling_rate": 800, **options},
    )


def _newer_vocoder() -> LTX2VocoderWithBWE:
    vocoder = _vocoder(
        LTX2VocoderWithBWE,
        bwe_in_channels=2 * _BINS,
        bwe_hidden_channels=16,
        bwe_upsample_kernel_sizes=[8, 4],
        bwe_upsample_factors=[4, 4],
        bwe_resnet_kernel_sizes=[3],
        bwe_resnet_dilations=[[1]],
        filter_length=16,
        hop_length=8,
        window_length=16,
        num_mel_channels=_BINS,
        input_sampling_rate=800,
        output_sampling_rate=1600,
    )
    for name, buffer in vocoder.mel_stft.named_buffers():
        buffer.copy_(torch.linspace(0, len(name), buffer.numel()).sin().view_as(buffer))
    return vocoder


CHECKPOINTS = {
    "ltx2": TinyCheckpoint(ltx2_pipeline, SCHEDULER, call={"num_frames": 5}),
    "ltx2.3": TinyCheckpoint(
        partial(ltx2_pipeline, newer=True),
        SCHEDULER,
        inputs=("prompt", "seed", "steps", "negative prompt"),
        call={"num_frames": 5, **SKIPPING},
    ),
}
VARIANTS = {"ltx2-distilled": TinyCheckpoint(partial(ltx2_pipeline, newer=True), DISTILLED)}
CASES = {
    ("ltx2", "text-to-video"): Case("ltx2", changes=VIDEO),
    ("ltx2", "image-to-video"): Case(
        "ltx2.3", LTX2ImageToVideoPipeline, PICTURE | VIDEO, stock_call=SKIPPING
    ),
}
