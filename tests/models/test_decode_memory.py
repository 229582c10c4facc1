"""The memory that decoding takes, counted with the published geometries and without data."""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from counted_memory import META, peak_of
from tiled_vaes import decoded_in_tiles

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.models.vaes.cogvideox import CogVideoXVAE
from multimodal_gen.runtime.models.vaes.flux2 import Flux2VAE
from multimodal_gen.runtime.models.vaes.hunyuan_video import HunyuanVideoVAE
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.models.vaes.ltx import LTXVAE
from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.models.vaes.qwen_image_21 import QwenImage21VAE
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.models.vaes.wan import WanVAE

FLUX = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
SANA = {
    f"{half}coder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    for half in ("en", "de")
} | {"upsample_block_type": "interpolate"}
WAN_2_2 = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
LTX_0_9_5 = {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "spatio_temporal_scaling": (True, True, True, True),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (False, False, False, False),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
GEOMETRIES: dict[str, tuple[type[VAE], str, dict[str, Any], int]] = {
    "FLUX.1": (ImageVAE, "AutoencoderKL", FLUX, 1),
    "FLUX.2": (Flux2VAE, "AutoencoderKLFlux2", {}, 1),
    "Sana": (ImageVAE, "AutoencoderDC", SANA, 1),
    "Qwen-Image": (QwenImageVAE, "AutoencoderKLQwenImage", {}, 1),
    "Qwen-Image 2.1": (QwenImage21VAE, "AutoencoderKLQwenImage21", {}, 1),
    "Wan 2.1": (WanVAE, "AutoencoderKLWan", {}, 4),
    "Wan 2.2 5B": (WanVAE, "AutoencoderKLWan", WAN_2_2, 4),
    "LTX-Video 0.9": (LTXVAE, "AutoencoderKLLTXVideo", {}, 4),
    "LTX-Video 0.9.5": (LTXVAE, "AutoencoderKLLTXVideo", LTX_0_9_5, 4),
    "HunyuanVideo, one frame": (HunyuanVideoVAE, "AutoencoderKLHunyuanVideo", {}, 1),
    "HunyuanVideo": (HunyuanVideoVAE, "AutoencoderKLHunyuanVideo", {}, 4),
    "CogVideoX": (CogVideoXVAE, "AutoencoderKLCogVideoX", {}, 5),
}
SIDE = 512


def wrapped(kind: type[VAE], name: str, config: dict[str, Any]) -> VAE:
    with META:
        module = getattr(diffusers, name)(**config).eval()
    return kind(kind.transform(module))


def decoded_whole(vae: VAE, frames: int) -> Callable[[], object]:
    shape = 1, *vae.latent_shape(SIDE, SIDE, (frames - 1) * vae.frame_multiple + 1)
    latents = torch.empty(shape, device=META)

    def decode() -> None:
        given, carry = vae.module_latents(latents), None
        for chunk in range(vae.chunks(frames)):
            _, carry = vae.decode_tile(given, chunk, carry, seed=0)

    return decode


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_formula_is_no_less_than_what_is_counted_nor_much_more(name: str) -> None:
    kind, module, config, frames = GEOMETRIES[name]
    vae = wrapped(kind, module, config)
    counted = peak_of(decoded_whole(vae, frames))
    assert counted <= 1.02 * vae.decode_bytes(SIDE, SIDE, frames) <= 1.5 * counted


@pytest.mark.parametrize("side", [2048, 4096])
def test_tiles_keep_a_large_picture_within_the_stated_memory(side: int) -> None:
    vae = wrapped(ImageVAE, "AutoencoderKL", FLUX)
    latents = torch.empty(1, 16, side // 8, side // 8, device=META)
    vae.room = 0
    counted = peak_of(lambda: decoded_in_tiles(vae, latents, (side, side, 1), Mesh()))
    assert counted <= vae.peak_bytes(side, side) + latents.nbytes  # the module's own latents
    assert vae.peak_bytes(side, side) < 3.5e9 < vae.decode_bytes(side, side)
