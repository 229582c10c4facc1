"""Requests of every family whose pixels are encoded and decoded in tiles, as in diffusers after
`vae.enable_tiling()`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engineless import load
from parity import check_parity
from support import CASES, Cell
from tiny_checkpoints.oracle import stock_pipeline
from torch import nn

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

LIBRARY = {family.name for family in FAMILIES if family.denoiser == "fallback"}
OWN_TILES = {"minimax_h3"}
"""Families whose VAE always has tiles, which are part of what it makes."""
TILED = [cell for cell in CASES if cell[0] not in LIBRARY | OWN_TILES]


@pytest.mark.parametrize("cell", TILED, ids=" ".join)
def test_each_task_is_done_in_tiles_as_diffusers_does_it(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    case = CASES[cell]
    for module, name, value in case.patches:
        monkeypatch.setattr(f"{module}.{name}", value)
    folder = checkpoints(case.checkpoint)
    pipeline = load(folder)
    _use_small_tiles(pipeline.vae._module, pipeline)
    pipeline.limit_decoding(0)
    assert pipeline.vae.is_tiled(64, 64)
    call = case.call
    if _mirrors_edges(pipeline.vae._module):
        side = 4 * pipeline.vae.module_scale
        call = {**call, "width": side, "height": side}
    with _tiled(stock_pipeline(folder).vae, pipeline):
        check_parity(pipeline, folder, stock=case.stock, stock_call=case.stock_call, **call)


def _mirrors_edges(vae: nn.Module) -> bool:
    """Whether a tile must be two latents wide, since its edges are continued by their neighbors."""
    return any(getattr(each, "padding_mode", "") == "reflect" for each in vae.modules())


def _use_small_tiles(vae: Any, pipeline: ComposedPipeline) -> None:
    """Tiles of two to four latents a side, of which a quarter to a half is blended."""
    scale = pipeline.vae.module_scale
    if hasattr(vae, "tile_sample_min_size"):
        vae.tile_sample_min_size, vae.tile_latent_min_size = 4 * scale, 4
    elif hasattr(vae, "tile_overlap_factor_height"):
        vae.enable_tiling(4 * scale, 4 * scale, 0.25, 0.25)
    elif hasattr(vae, "tile_overlap_factor"):
        vae.enable_tiling(2 * scale, 2 * scale, 2, 2, 0.5)
    else:
        names = ("min_height", "min_width", "stride_height", "stride_width")
        least, stride = (3, 2) if _mirrors_edges(vae) else (2, 1)
        sizes = (least * scale,) * 2 + (stride * scale,) * 2
        vae.enable_tiling(
            **{f"tile_sample_{name}": size for name, size in zip(names, sizes, strict=True)}
        )
    vae.use_tiling = False


@contextmanager
def _tiled(vae: Any, pipeline: ComposedPipeline) -> Iterator[None]:
    """The stock pipeline's VAE, which other tests use as well, with tiles like this one's."""
    before = {name: value for name, value in vars(vae).items() if "til" in name}
    _use_small_tiles(vae, pipeline)
    vae.use_tiling = True
    yield
    vars(vae).update(before)
