"""FLUX gives what diffusers' pipelines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers.pipelines.flux import pipeline_flux_kontext
from engineless import load
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.solvers import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
    "max_sequence_length": 32,
}
SMALL = [(48, 112), (64, 64), (80, 48), (112, 40)]
"""Sizes that Kontext sees a picture in, in place of those that it was trained on."""


@pytest.fixture(scope="module", params=["flux-dev", "flux-schnell"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 3.5},
        {"guidance_scale": 1.5, "seed": 7},
        {"true_cfg_scale": 3.0, "negative_prompt": "blurry"},
        {"true_cfg_scale": 3.0, "negative_prompt": ""},
        {"true_cfg_scale": 3.0},
        {"true_cfg_scale": 1.0, "negative_prompt": "blurry"},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 512},
        {"prompt": "a <b>cat</b> & “dog” " * 40},
    ],
    ids=lambda change: ",".join(change),
)
def test_flux_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_flux_with_unipc_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    call = {**CALL, "num_inference_steps": 6}
    check_parity(pipeline, folder, solver="unipc", view=View.FLOW, **call)


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.6},
        {"strength": 1.0, "seed": 3, "true_cfg_scale": 3.0, "negative_prompt": "blurry"},
        {"height": 64, "width": 64, "strength": 0.3, "guidance_scale": 1.5},
    ],
    ids=lambda change: ",".join(change),
)
@pytest.mark.parametrize("mask", [False, True], ids=["image-to-image", "inpainting"])
def test_flux_from_a_picture_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any], mask: bool
) -> None:
    call = {**CALL, "guidance_scale": 3.5, **change, "image": picture(70, 61)}
    stock = diffusers.FluxImg2ImgPipeline
    if mask:
        call["mask_image"] = picture(50, 40, "L")
        stock = diffusers.FluxInpaintPipeline
    check_parity(pipeline, folder, stock=stock, **call)


@pytest.fixture(scope="module")
def kontext(checkpoints: Callable[..., Path]) -> tuple[ComposedPipeline, Path]:
    return load(checkpoints("flux-kontext")), checkpoints("flux-kontext")


@pytest.mark.parametrize("size", [(70, 61), (130, 50), (9, 60)])
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"true_cfg_scale": 3.0, "negative_prompt": "blurry"},
    ],
    ids=lambda change: ",".join(change),
)
def test_flux_kontext_equals_diffusers(
    kontext: tuple[ComposedPipeline, Path],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    change: dict[str, Any],
) -> None:
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", SMALL)
    call = {**CALL, "guidance_scale": 2.5, **change, "image": picture(*size)}
    area = {"max_area": CALL["width"] * CALL["height"]}
    check_parity(*kontext, stock_call=area, **call)


def test_flux_kontext_without_a_picture_equals_diffusers(
    kontext: tuple[ComposedPipeline, Path],
) -> None:
    area = {"max_area": CALL["width"] * CALL["height"]}
    check_parity(*kontext, stock_call=area, guidance_scale=2.5, **CALL)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_flux_fill_equals_diffusers(checkpoints: Callable[..., Path], strength: float) -> None:
    folder = checkpoints("flux-fill")
    pictures = {"image": picture(70, 61), "mask_image": picture(50, 40, "L")}
    check_parity(load(folder), folder, guidance_scale=30.0, strength=strength, **pictures, **CALL)


UNIPC: dict[str, Any] = {"solver": "unipc", "view": View.FLOW, "guidance_scale": 2.5}


@pytest.mark.parametrize("shown", [True, False])
def test_flux_kontext_with_unipc_equals_diffusers(
    kontext: tuple[ComposedPipeline, Path], monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """Its pipeline sets the sigmas of solvers that have their own; FLUX.1's does not."""
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", SMALL)
    area = {"max_area": CALL["width"] * CALL["height"]}
    pictures = {"image": picture(70, 61)} if shown else {}
    check_parity(*kontext, stock_call=area, **UNIPC, **pictures, **CALL)
