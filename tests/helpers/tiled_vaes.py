"""Small VAEs of real classes, and their decoding in tiles, unit by unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from torch import Tensor

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.models.vaes.wan import WanVAE

Size = tuple[int, int, int]
"""Height, width and latent frames."""


@dataclass
class Decoded:
    """`frames`, and `magnitudes`, the largest value of each tile, are those of rank 0."""

    frames: list[Tensor] = field(default_factory=list)
    magnitudes: list[Tensor] = field(default_factory=list)
    failure: Exception | None = None
    units: int = 0


@torch.inference_mode()
def decoded_in_tiles(
    vae: VAE, latents: Tensor, size: Size, mesh: Mesh, *, room: int = 0
) -> Decoded:
    """Decode to frames [F, H, W, 3] uint8."""
    vae.room = room
    grid, chunks, decoded = vae.grid(*size), vae.chunks(size[2]), Decoded()
    assert grid is not None
    run = TileRun(
        vae,
        grid,
        latents,
        mesh.rank,
        ranks=mesh.world_size,
        chunks=chunks,
        options={"seed": 0},
    )
    decoded.units = TileRun.units(grid, mesh.world_size, chunks)
    for _ in range(decoded.units):
        decoded.frames += run.advance(
            lambda pixels: decoded.magnitudes.append(pixels.abs().max()), lambda frames: frames
        )
    decoded.failure = run.failure
    return decoded


def image_module(*widths: int, sample_size: int, groups: int) -> AutoencoderKL:
    """An AutoencoderKL with FLUX.1's kinds of layers in these widths."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=groups,
        sample_size=sample_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def picture_vae() -> tuple[VAE, Tensor, Size]:
    """12 tiles of 32 pixels, the last of them smaller."""
    vae = ImageVAE(image_module(8, 16, sample_size=32, groups=4))
    return vae, _drawn(1, 16, 36, 48), (72, 96, 1)


def video_vae() -> tuple[VAE, Tensor, Size]:
    """6 tiles of two chunks."""
    torch.manual_seed(0)
    module: Any = AutoencoderKLWan(base_dim=4, num_res_blocks=1).eval()
    module.tile_sample_min_height = module.tile_sample_min_width = 32
    module.tile_sample_stride_height = module.tile_sample_stride_width = 24
    return WanVAE(module), _drawn(1, 16, 2, 5, 8), (40, 64, 2)


def _drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
