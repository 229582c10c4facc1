"""Results that a model enlarges, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from engineless import left, load, start
from engines import start_engine, submit_to
from parity import PIXELS
from upscaling import DOUBLE, INSTALLED, enlarged, library_path, save_esrgan

from multimodal_gen.client.request_handle import Update
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.models.upscaler import Enlargement, Upscaler
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.decode import decode_units
from multimodal_gen.runtime.stages.request_state import RequestState

Checkpoints = Callable[..., Path]
SIZE = {"width": 64, "height": 32}
STEPS = {"prompt": "a red heart", "num_inference_steps": 2, "max_sequence_length": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("upscalers")
    save_esrgan(made / "4x-tiny.safetensors")
    (made / "old.pth").write_bytes(b"\x80\x02}q\x00.")
    (made / "broken.safetensors").write_bytes(b"not one")
    torch_file = made / "other.safetensors"
    torch_file.write_bytes((made / "4x-tiny.safetensors").read_bytes().replace(b"conv_", b"cxnv_"))
    return made


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> None:
    if not INSTALLED:
        monkeypatch.syspath_prepend(DOUBLE)


@cache
def _loaded(checkpoint: Path, upscalers: Path) -> ComposedPipeline:
    pipeline = load(checkpoint)
    pipeline.upscalers.open(str(upscalers))
    return pipeline


@pytest.fixture
def flux(checkpoints: Checkpoints, folder: Path) -> ComposedPipeline:
    return _loaded(checkpoints("flux-dev"), folder)


def run_pass(pipeline: ComposedPipeline, state: RequestState) -> np.ndarray[Any, Any]:
    if state.enlargement is None:
        pipeline.forward(Phase.DENOISE, [state], left(state))
    for _ in range(decode_units(pipeline, state)):
        pipeline.forward(Phase.DECODE, [state], 1)
    return torch.cat(state.chunks).numpy()


def test_a_result_is_what_the_library_makes_of_it(flux: ComposedPipeline, folder: Path) -> None:
    state = start(flux, SamplingParams(**SIZE, **STEPS, upscale="4x-tiny@4"))
    first, enlargement = run_pass(flux, state), state.second
    assert enlargement is not None
    assert enlargement.second is None
    ours = run_pass(flux, enlargement)
    theirs = enlarged(folder / "4x-tiny.safetensors", first)
    assert ours.shape == (1, 128, 256, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= PIXELS
    assert theirs.std() > 10


def test_another_factor_is_reached_by_lanczos(flux: ComposedPipeline, folder: Path) -> None:
    state = start(flux, SamplingParams(**SIZE, **STEPS, upscale="4x-tiny@2.5"))
    first = run_pass(flux, state)
    assert state.second is not None
    (ours,) = run_pass(flux, state.second)
    (whole,) = enlarged(folder / "4x-tiny.safetensors", first)
    theirs = PIL.Image.fromarray(whole).resize((160, 80), PIL.Image.Resampling.LANCZOS)
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= PIXELS


def test_a_strength_adds_a_second_pass_from_what_the_model_made(
    flux: ComposedPipeline, folder: Path
) -> None:
    """As image-to-image from the same picture."""
    size = {"width": 128, "height": 64}
    choice = {"factor": 2, "model": "4x-tiny", "strength": 0.6, "steps": 5}
    state = start(flux, SamplingParams.from_fields(**SIZE, **STEPS, upscale=choice))
    first, middle = run_pass(flux, state), state.second
    assert middle is not None
    last = middle.second
    assert last is not None
    run_pass(flux, middle)
    ours = run_pass(flux, last)
    (picture,) = enlarged(folder / "4x-tiny.safetensors", first)
    given = {**STEPS, **size, "num_inference_steps": 5, "strength": 0.6}
    theirs = run_pass(flux, start(flux, SamplingParams(**given), {"image": picture}))
    assert ours.shape == (1, 64, 128, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= PIXELS


@pytest.mark.parametrize("size", [(257, 90), (200, 449)])
def test_tiles_show_what_the_whole_picture_would(
    size: tuple[int, int], flux: ComposedPipeline, folder: Path
) -> None:
    """The receptive field of the tiny model is less than the margin."""
    upscaler: Upscaler = flux.upscalers.load("4x-tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    grid = upscaler.grid(2, *size)
    assert len(grid) > 2
    ours = _in_tiles(upscaler, pixels)
    apart = ours.astype(int) - enlarged(folder / "4x-tiny.safetensors", pixels)
    assert np.abs(apart).max() <= PIXELS


@torch.inference_mode()
def _in_tiles(upscaler: Upscaler, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    enlargement = Enlargement(upscaler, upscaler.grid(*pixels.shape[:3]), 0, 1, None)
    run = enlargement.run([torch.from_numpy(pixels)])
    made = [run.advance(lambda _: None, enlargement.fitted) for _ in range(enlargement.units)]
    assert run.failure is None
    return torch.cat([frame for frames in made for frame in frames]).numpy()


def test_frames_of_a_video_are_enlarged(checkpoints: Checkpoints, folder: Path) -> None:
    wan = _loaded(checkpoints("wan"), folder)
    size = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 1}
    state = start(wan, SamplingParams(prompt="x", **size, upscale="4x-tiny@4"))
    first = run_pass(wan, state)
    assert state.second is not None
    ours = run_pass(wan, state.second)
    theirs = enlarged(folder / "4x-tiny.safetensors", first)
    assert ours.shape == (5, 128, 128, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= PIXELS


@pytest.mark.parametrize(
    ("upscale", "said"),
    [
        ("missing@2", "is not known; available: 4x-tiny, broken, other"),
        ("../4x-tiny@2", "is not known"),
        ("old@2", "old.pth could run code, so it is not read"),
        ("broken@2", "4x|safetensors|header|HeaderTooLarge"),
        ("other@2", "is not a model that spandrel knows"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_computed(
    upscale: str, said: str, flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def condition(*given: object) -> None:
        raise AssertionError

    monkeypatch.setattr(flux, "condition", condition)
    with pytest.raises(InvalidRequest, match=said) as refused:
        start(flux, SamplingParams(**SIZE, **STEPS, upscale=upscale))
    assert refused.value.field == "upscale"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("4x-tiny@x", r"must be FACTOR"),
        ("@2", "model must be the name"),
        ({"factor": 2, "model": "4x-tiny", "steps": 3}, "steps needs a strength"),
        ({"factor": 2, "model": 3}, "model must be the name"),
        ("4x-tiny@8", "its result: width=16384: must be at most"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    given: object, said: str, flux: ComposedPipeline
) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        start(flux, SamplingParams.from_fields(**{**STEPS, "width": 2048}, upscale=given))
    assert refused.value.field == "upscale"


def test_without_a_folder_a_model_is_refused(checkpoints: Checkpoints) -> None:
    with pytest.raises(InvalidRequest, match="without upscaler_dir"):
        start(load(checkpoints("flux-dev")), SamplingParams(**STEPS, upscale="4x-tiny@2"))


def test_a_family_without_a_second_pass_takes_a_model_only(
    checkpoints: Checkpoints, folder: Path
) -> None:
    wan = _loaded(checkpoints("wan"), folder)
    with pytest.raises(InvalidRequest, match=r"second pass \(strength\) is not supported by wan"):
        start(wan, SamplingParams(prompt="x", upscale="4x-tiny@2:0.5"))


def test_without_the_extra_a_model_is_refused(
    checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    flux = load(checkpoints("flux-dev"))
    flux.upscalers.open(str(folder))
    with pytest.raises(InvalidRequest, match=r"needs an extra .*pip install .*\[upscale\]"):
        start(flux, SamplingParams(**SIZE, **STEPS, upscale="4x-tiny@2"))


@pytest.fixture(scope="module")
def served(folder: Path, unlimited_model: Path) -> Iterator[EngineProcess]:
    """On two ranks, which share the tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", library_path())
        with start_engine(
            model_path=str(unlimited_model), upscaler_dir=str(folder), num_gpus=2
        ) as engine:
            yield engine


def test_an_engine_enlarges_requests_beside_others(served: EngineProcess, folder: Path) -> None:
    given = {"width": 64, "height": 64, "num_inference_steps": 2}
    plain = submit_to(served, **given).result(200).pixels
    handles = [submit_to(served, **given, upscale="4x-tiny@4") for _ in range(2)]
    beside = submit_to(served, **given)
    for handle in handles:
        ours = handle.result(200).pixels
        theirs = enlarged(folder / "4x-tiny.safetensors", plain)
        # A pixel of the first pass that is rounded the other way changes its surroundings.
        assert np.median(np.abs(ours.astype(int) - theirs)) <= PIXELS
        assert ours.shape == (1, 256, 256, 3)
    assert np.abs(beside.result(200).pixels.astype(int) - plain).max() <= PIXELS


def test_an_engine_refuses_unknown_names(served: EngineProcess) -> None:
    with pytest.raises(InvalidRequest, match="is not known; available: 4x-tiny"):
        submit_to(served, width=64, height=64, upscale="missing@2").result(60)
    with pytest.raises(InvalidRequest, match="is not a model that spandrel knows"):
        submit_to(served, width=64, height=64, upscale="other@2").result(60)


def test_enlarging_can_be_cancelled_between_tiles(served: EngineProcess) -> None:
    given = {"width": 512, "height": 512, "num_inference_steps": 1}
    handle = submit_to(served, **given, upscale="4x-tiny@4")
    for event in handle:
        assert isinstance(event, Update)
        if event.step == event.total:
            break
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(200)
    assert submit_to(served, num_inference_steps=1).result(60).seed == 1
