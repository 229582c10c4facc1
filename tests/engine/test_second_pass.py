"""A request that is upscaled: generated, enlarged, and generated from once more."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from engineless import Output, finish, left, load, start
from engines import start_engine, submit_to
from parity import LATENTS, PIXELS, check_same_picture, pixels_apart, relative
from places import FAULTS_FOLDER, python_path
from support import CASES
from tiny_checkpoints import Reference, reference
from tiny_checkpoints.case import Case

from multimodal_gen.client.request_handle import Update
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import Cancelled, GenerationFailed, InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

Checkpoints = Callable[..., Path]
SIZE = {"width": 64, "height": 32}
LARGER = {"width": 96, "height": 48}
UPSCALE = UpscaleChoice(factor=1.5, strength=0.6, steps=5)
LIBRARY = ("fallback", "modular")
"""Families whose pipelines are run as their library has them."""
FAMILIES = [
    name
    for name, task in CASES
    if task == "image-to-image" and (name, "text-to-image") in CASES and name not in LIBRARY
]


FLUX = {"prompt": "a red heart", "num_inference_steps": 5, "max_sequence_length": 32}


@pytest.fixture
def flux(checkpoints: Checkpoints) -> ComposedPipeline:
    return _loaded(checkpoints("flux-dev"))


@pytest.fixture
def sd15(checkpoints: Checkpoints) -> ComposedPipeline:
    return _loaded(checkpoints("sd15"))


@cache
def _loaded(folder: Path) -> ComposedPipeline:
    return load(folder)


def first_pass(pipeline: ComposedPipeline, **params: Any) -> RequestState:
    """A request whose first pass is decoded."""
    state = start(pipeline, SamplingParams(**{**SIZE, "upscale": UPSCALE, **params}))
    pipeline.forward(Phase.DENOISE, [state], left(state))
    pipeline.forward(Phase.DECODE, [state], pipeline.decode_chunks(state.params))
    return state


def second_pass(pipeline: ComposedPipeline, state: RequestState) -> Output:
    assert state.second is not None
    pipeline.forward(Phase.DENOISE, [state.second], left(state.second))
    return finish(pipeline, state.second)


def again(case: Case, folder: Path, call: dict[str, Any], made: np.ndarray) -> Reference:
    """What diffusers makes of an image, enlarged by hand."""
    size = LARGER["width"], LARGER["height"]
    image = PIL.Image.fromarray(made).resize(size, PIL.Image.Resampling.LANCZOS)
    sized = LARGER if "width" in inspect.signature(case.stock.__call__).parameters else {}
    call = {**call, **sized, "num_inference_steps": UPSCALE.steps, "image": image}
    return reference(folder, kind=case.stock, strength=UPSCALE.strength, **call)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_image_to_image_from_the_enlarged_result(
    family: str, checkpoints: Checkpoints
) -> None:
    case = CASES[family, "image-to-image"]
    folder = checkpoints(case.checkpoint)
    own = {*SIZE, "image", "strength"}
    call = {name: value for name, value in case.call.items() if name not in own}
    pipeline = _loaded(folder)
    state = first_pass(pipeline, **call)
    assert state.second is not None
    expected = {pipeline.batch_key(state.second, i) for i in range(left(state.second))}
    ours, made = second_pass(pipeline, state), state.chunks[0][0].numpy()
    assert {pipeline.batch_key(state.second, 0)} == expected
    theirs = reference(folder, **call, **SIZE, **case.stock_call)
    # Where a pixel of theirs is rounded the other way, the second pass would start elsewhere.
    assert np.abs(made.astype(int) - theirs.images[0]).max() <= PIXELS
    theirs = again(case, folder, call, made)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


def test_its_neighbours_change_nothing(flux: ComposedPipeline) -> None:
    alone = second_pass(flux, first_pass(flux, **FLUX))
    upscaled, plain = first_pass(flux, **FLUX), start(flux, SamplingParams(**LARGER, **FLUX))
    assert upscaled.second is not None
    keys = [flux.batch_key(state, 0) for state in (upscaled.second, plain)]
    assert keys[0] == keys[1]
    flux.forward(Phase.DENOISE, [upscaled.second, plain], left(upscaled.second))
    check_same_picture(finish(flux, upscaled.second), alone)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"upscale": 9}, "factor must be more than 1 and at most 8"),
        ({"upscale": "2:x"}, r"must be FACTOR\[:STRENGTH"),
        ({"upscale": {"factor": 2, "size": 3}}, r"must be FACTOR\[:STRENGTH"),
        (
            {"upscale": {"factor": 2, "strength": 1.5}},
            "its second pass: strength=1.5: must be more",
        ),
        ({"upscale": {"factor": 2, "steps": 0}}, "its second pass: num_inference_steps=0: must be"),
        ({"upscale": 8, "width": 2048}, "its second pass: width=16384: must be"),
        (
            {"upscale": {"factor": 2, "strength": 0.01}},
            "its second pass: strength=0.01: leaves none",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    given: dict[str, Any], said: str, sd15: ComposedPipeline
) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        start(sd15, SamplingParams.from_fields(num_inference_steps=4, scheduler="euler", **given))
    assert refused.value.field == "upscale"


def test_a_model_that_starts_from_no_images_refuses_it(checkpoints: Checkpoints) -> None:
    with pytest.raises(InvalidRequest, match=r"upscale=.*not supported by wan"):
        start(_loaded(checkpoints("wan")), SamplingParams(upscale=UPSCALE))


def test_a_mask_is_not_combined_with_it(sd15: ComposedPipeline) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InvalidRequest, match="can't be combined with upscale"):
        start(sd15, SamplingParams(upscale=UPSCALE), {"image": pixels, "mask": pixels[..., 0]})


def test_its_progress_counts_both_passes_from_the_start(engine: EngineProcess) -> None:
    upscale = {"factor": 1.5, "strength": 0.5, "steps": 40}
    handle = submit_to(engine, width=64, height=64, num_inference_steps=30, upscale=upscale)
    events = list(handle)
    updates = [event for event in events if isinstance(event, Update)]
    steps = [update.step for update in updates]
    assert {update.total for update in updates} == {50}
    assert steps == sorted(steps)
    assert steps[-1] == 50
    output = handle.result()
    assert output.pixels.shape == (1, 96, 96, 3)
    assert len(output.batch_sizes) == 50


def test_it_is_cancelled_in_its_second_pass(engine: EngineProcess) -> None:
    upscale = {"factor": 2, "strength": 1, "steps": 900}
    handle = submit_to(engine, width=48, height=48, num_inference_steps=2, upscale=upscale)
    for event in handle:
        assert isinstance(event, Update)
        if event.step > 2:
            break
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(60)
    assert submit_to(engine, num_inference_steps=1).result(60).seed == 1


def test_it_is_made_in_a_batch_with_others(engine: EngineProcess) -> None:
    given = {"width": 64, "height": 64, "num_inference_steps": 4, "upscale": UPSCALE}
    alone = [submit_to(engine, seed=seed, **given).result(200).pixels for seed in (1, 2)]
    handles = [submit_to(engine, seed=seed, **given) for seed in (1, 2)]
    handles.append(submit_to(engine, width=96, height=96, num_inference_steps=8))
    for handle, expected in zip(handles, alone, strict=False):
        apart = handle.result(200).pixels.astype(int) - expected
        assert np.abs(apart).max() <= PIXELS
    assert handles[-1].result(200).pixels.shape == (1, 96, 96, 3)


@pytest.mark.parametrize(
    "fault", ["decode:0:raise", pytest.param("prepare:1:raise:3", marks=pytest.mark.slow)]
)
def test_a_rank_that_fails_between_the_passes_ends_that_request_only(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(FAULTS_FOLDER))
    monkeypatch.setenv("RANK_FAULTS", f"softly={fault}")
    with start_engine(num_gpus=2) as two_ranks:
        small = {"width": 64, "height": 64, "num_inference_steps": 2, "upscale": UPSCALE}
        prompts = ("fail softly", "a red heart")
        failing, other = [submit_to(two_ranks, prompt, **small) for prompt in prompts]
        with pytest.raises(GenerationFailed, match="planted"):
            failing.result(200)
        assert other.result(200).pixels.shape == (1, 96, 96, 3)
