"""Small VAEs of each class whose decoder works on bands, and their decoding in bands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLWan
from tiled_vaes import Decoded, image_module
from torch import Tensor

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.models.vaes.bands.band_run import BandRun
from multimodal_gen.runtime.models.vaes.bands.banded_decoder import BandedDecoder
from multimodal_gen.runtime.models.vaes.bands.exchange import Bands
from multimodal_gen.runtime.models.vaes.flux2 import Flux2VAE
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.models.vaes.wan import WanVAE

_SMALL: dict[str, Any] = {"base_dim": 4, "num_res_blocks": 1}
_RESIDUAL: dict[str, Any] = {
    "is_residual": True,
    "decoder_base_dim": 4,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
}


def banded_vaes() -> Iterator[tuple[type[VAE], Any, Tensor]]:
    """Wrappers, modules and latents, whose rows are no multiple of the number of ranks."""
    torch.manual_seed(0)
    image = image_module(8, 16, sample_size=32, groups=4)
    yield ImageVAE, ImageVAE.transform(image), torch.randn(1, 16, 7, 6)
    flux2: Any = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()
    yield Flux2VAE, Flux2VAE.transform(flux2), torch.randn(1, 16, 5, 3)
    qwen: Any = AutoencoderKLQwenImage(**_SMALL).eval()
    yield QwenImageVAE, QwenImageVAE.transform(qwen), torch.randn(1, 16, 5, 3)
    for options in ({}, _RESIDUAL):
        yield WanVAE, AutoencoderKLWan(**_SMALL, **options).eval(), torch.randn(1, 16, 3, 5, 3)


@torch.inference_mode()
def decoded_whole(vae: VAE, latents: Tensor) -> Tensor:
    """Pixels [F, 3, H, W] of the decoding that is not shared."""
    pixels, carry = [], None
    for chunk in range(vae.chunks(latents.shape[2])):
        part, carry = vae.decode(latents, chunk, carry)
        pixels.append(part)
    return torch.cat(pixels)


def banded_decoder(wrapper: type[VAE], module: Any, mesh: Mesh) -> BandedDecoder:
    return BandedDecoder(wrapper, module, Bands(mesh.rank, mesh.world_size, torch.device("cpu")))


@torch.inference_mode()
def decoded_in_bands(decoder: BandedDecoder, latents: Tensor) -> tuple[Decoded, list[Tensor]]:
    """Frames [F, H, W, 3] uint8 and, on rank 0, the pixels that they are made of."""
    decoded, pixels = Decoded(), list[Tensor]()
    run = BandRun(decoder, latents, {"seed": 0})
    for _ in range(decoder.vae.chunks(latents.shape[2])):
        decoded.frames += run.advance(pixels.append, lambda frames: frames)
        decoded.units += 1
    decoded.failure = run.failure
    return decoded, pixels
