"""Decoding and encoding in tiles: equal to the module's own tiled methods."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from engineless import load
from torch import Tensor

from multimodal_gen.runtime.models.vaes.cogvideox import CogVideoXVAE
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun
from multimodal_gen.runtime.models.vaes.vae import VAE, VideoVAE

Checkpoints = Callable[..., Path]
Load = Callable[[str], VAE]

SQUARES = {
    f"tile_sample_{kind}_{side}": pixels
    for side in ("height", "width")
    for kind, pixels in (("min", 64), ("stride", 48))
}
"""Smaller tiles than the published ones, for speed."""
CASES: dict[str, tuple[tuple[int, int, int], dict[str, int]]] = {
    "flux-dev": ((112, 160, 1), {}),
    "sd15": ((136, 64, 1), {}),
    "flux2-klein": ((112, 160, 1), {}),
    "sana": ((80, 128, 1), SQUARES),
    "qwenimage": ((80, 128, 1), SQUARES),
    "wan": ((80, 64, 2), SQUARES),
    "wan22-ti2v": ((80, 128, 2), {**SQUARES, "tile_sample_stride_height": 32}),
    "ltx": ((80, 128, 2), SQUARES),
    "ltx2": ((80, 128, 2), SQUARES),
    "hunyuan-video": ((80, 64, 2), SQUARES),
    "hunyuan-video, long": ((80, 64, 6), SQUARES),
    "cogvideox": ((64, 96, 3), {"tile_sample_min_height": 48, "tile_sample_min_width": 80}),
}
"""Height, width and latent frames that take several tiles, with smaller ones at the edges."""


@pytest.fixture
def vae_of(checkpoints: Checkpoints) -> Load:
    def make(case: str) -> VAE:
        vae = load(checkpoints(case.partition(",")[0])).vae
        _, tiles = CASES[case]
        if tiles:
            vae._module.enable_tiling(**tiles)
            vae._module.disable_tiling()
        return vae

    return make


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def latents_for(vae: VAE, size: tuple[int, int, int]) -> Tensor:
    height, width, frames = size
    return drawn(1, *vae.latent_shape(height, width, (frames - 1) * vae.frame_multiple + 1))


def in_tiles(vae: VAE, latents: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Decode to pixels [F, H, W, 3] uint8, unit by unit."""
    grid = vae.grid(*size)
    assert grid is not None
    chunks = vae.chunks(size[2])
    run = TileRun(vae, grid, latents, 0, ranks=1, chunks=chunks, options={"seed": 0})
    complete: list[Tensor] = []
    for _ in range(TileRun.units(grid, 1, chunks)):
        complete += run.advance(lambda pixels: None, lambda frames: frames)
    assert run.failure is None
    return torch.cat(complete)


def by_module(vae: VAE, latents: Tensor, *, tiled: bool) -> Tensor:
    """Decode to pixels [F, H, W, 3] uint8 by the module's own method."""
    module: Any = vae._module
    given = vae.module_latents(latents)
    if not isinstance(vae, VideoVAE | QwenImageVAE):
        given = given[:, :, 0]
    module.use_tiling = tiled
    decoded = module.decode(given, return_dict=False)[0]
    module.use_tiling = False
    video = decoded if decoded.dim() == 5 else decoded.unsqueeze(2)
    return to_uint8(video[0].transpose(0, 1)).int()


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_pixels_are_those_of_the_modules_own_tiles(case: str, vae_of: Load) -> None:
    vae, (size, _) = vae_of(case), CASES[case]
    latents = latents_for(vae, size)
    expected = by_module(vae, latents, tiled=True)
    vae.room = 0
    pixels = in_tiles(vae, latents, size).int()
    assert pixels.shape == expected.shape
    assert (pixels - expected).abs().max() <= 1
    assert (pixels != expected).float().mean() < 0.001
    assert (by_module(vae, latents, tiled=False) - expected).abs().max() > 1


@pytest.mark.parametrize("case", [case for case in CASES if case != "sana"])  # encodes nothing
@torch.inference_mode()
def test_latents_are_those_of_the_modules_own_tiles(case: str, vae_of: Load) -> None:
    vae, ((height, width, frames), _) = vae_of(case), CASES[case]
    is_video = isinstance(vae, VideoVAE)
    length = ((frames - 1) * vae.frame_multiple + 1,) if is_video else ()
    pixels = drawn(1, 3, *length, height, width).clamp(-1, 1)
    vae._module.use_tiling = True
    one_frame = case == "qwenimage"
    given = pixels.unsqueeze(2) if one_frame else pixels
    mode = vae._module.encode(given, return_dict=False)[0].mode()
    mode = mode[:, :, 0] if one_frame else mode
    vae._module.use_tiling = False
    vae.room = 0
    tiled = vae.encode(pixels)
    assert torch.equal(tiled, vae._normalized(mode))
    vae.room = None
    assert not torch.equal(vae.encode(pixels), tiled)


def test_tiles_are_those_that_the_classes_are_published_with(checkpoints: Checkpoints) -> None:
    def axes(name: str) -> object:
        return load(checkpoints(name)).vae.tile_axes

    small = TileAxis(tile=32, stride=24, pixels=8, blend=64)
    assert axes("wan") == axes("qwenimage") == axes("hunyuan-video") == (small, small)
    patched = TileAxis(tile=16, stride=12, pixels=8, blend=32)
    assert axes("wan22-ti2v") == (patched, patched)
    assert axes("sana") == (TileAxis(tile=64, stride=56, pixels=8, blend=64),) * 2
    trained = TileAxis(tile=8, stride=6, pixels=8, blend=16)
    assert axes("flux-dev") == axes("flux2-klein") == (trained, trained)
    module = AutoencoderKLCogVideoX(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    assert CogVideoXVAE(module).tile_axes == (
        TileAxis(tile=30, stride=25, pixels=8, blend=40),
        TileAxis(tile=45, stride=36, pixels=8, blend=72),
    )


def test_tiles_that_do_not_fit_together_are_not_used(checkpoints: Checkpoints) -> None:
    vae = load(checkpoints("cogvideox")).vae  # tiles of 32 pixels with an overlap of a sixth
    vae.room = 0
    assert vae.tile_axes is None
    assert not vae.is_tiled(4096, 4096)


@pytest.mark.parametrize("case", ["flux-dev", "wan", "hunyuan-video, long"])
def test_only_what_does_not_fit_is_tiled(case: str, vae_of: Load) -> None:
    vae, ((height, width, frames), _) = vae_of(case), CASES[case]
    needed = vae.decode_bytes(height, width, frames)
    for room, tiled in ((None, False), (needed, False), (needed - 1, True)):
        vae.room = room
        assert vae.is_tiled(height, width, frames) is tiled
        assert not vae.is_tiled(64, 64, frames)  # a tile, however little room there is
