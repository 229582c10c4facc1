"""Pipelines of diffusers that have no family here run as diffusers runs them, step by step."""

from __future__ import annotations

import gc
import json
import math
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import Output, finish, left, load, run, start
from parity import check_parity

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import GenerationFailed, InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.distributed.mesh import Axis, Mesh
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.fallback import previews
from multimodal_gen.runtime.pipelines.fallback.solver import LibrarySolver
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
}
REQUEST = SamplingParams(**CALL, seed=0)


@pytest.fixture(scope="module")
def lumina(checkpoints: Checkpoints) -> ComposedPipeline:
    return load(checkpoints("lumina2"))


@pytest.fixture(scope="module")
def expected(lumina: ComposedPipeline) -> Output:
    return run(lumina, REQUEST)


@pytest.fixture(scope="module", params=["pixart-alpha", "lumina2", "latte"])
def folder(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3, "height": 64},
        {"negative_prompt": "blurry"},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 2, "prompt": ""},
    ],
    ids=lambda change: ",".join(change),
)
def test_the_fallback_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


@pytest.mark.parametrize(("width", "height"), [(80, 48), (64, 64)])
def test_pixels_are_in_the_order_in_which_they_are_sent(
    pipeline: ComposedPipeline, width: int, height: int
) -> None:
    state = start(pipeline, replace(REQUEST, width=width, height=height))
    finish(pipeline, state)
    assert state.chunks
    assert all(chunk.is_contiguous() for chunk in state.chunks)


def test_each_evaluation_of_a_scheduler_that_has_more_than_steps_is_counted(
    checkpoints: Checkpoints,
) -> None:
    folder = checkpoints("latte", scheduler={"_class_name": "PNDMScheduler"})
    pipeline = load(folder)
    assert left(start(pipeline, replace(REQUEST, num_inference_steps=5))) > 5
    check_parity(pipeline, folder, **{**CALL, "num_inference_steps": 5})


def test_what_the_library_refuses_is_the_callers_error_with_its_field(
    lumina: ComposedPipeline,
) -> None:
    with pytest.raises(InvalidRequest, match="max_sequence_length=4096: "):
        start(lumina, replace(REQUEST, max_sequence_length=4096))


def test_requests_take_turns_and_share_nothing(lumina: ComposedPipeline, expected: Output) -> None:
    other = replace(REQUEST, seed=9, num_inference_steps=4, prompt="a dog")
    alone = run(lumina, other)
    states = [start(lumina, REQUEST), start(lumina, other)]
    assert lumina.batch_key(states[0], 0) == lumina.batch_key(states[0], 1)
    while any(left(state) for state in states):
        for state in filter(left, states):
            lumina.forward(Phase.DENOISE, [state], 1)
    lumina.forward(Phase.DECODE, states, 1)
    for state, output in zip(states, (expected, alone), strict=True):
        assert np.array_equal(torch.cat(state.chunks).numpy(), output.pixels)


@pytest.mark.parametrize("name", ["lumina2", "latte", "pixart-alpha"])
def test_previews_show_the_estimate_of_x0_and_change_nothing(
    checkpoints: Checkpoints, name: str
) -> None:
    pipeline = load(checkpoints(name))
    request = replace(REQUEST, num_inference_steps=5)
    state, shown = start(pipeline, request, previews=True), []
    while left(state):
        pipeline.forward(Phase.DENOISE, [state], 1)
        shown.append(state.preview)
        state.preview = None
    assert shown[-1] is None  # the result itself follows
    for preview in shown[:-1]:
        assert preview is not None
        assert max(preview.shape) <= 256
        assert preview.shape[2] == 3
        assert preview.dtype == torch.uint8
    solver, latents = state.running()
    assert isinstance(solver, LibrarySolver)
    _, x0 = solver.step(latents, left(state), latents)
    torch.testing.assert_close(x0, latents)  # the last step ends at x0
    silent = start(pipeline, request)
    pipeline.forward(Phase.DENOISE, [silent], left(silent))
    pixels = [finish(pipeline, each).pixels for each in (state, silent)]
    assert np.array_equal(*pixels)


def test_a_scheduler_whose_x0_is_unknown_costs_the_previews_and_nothing_else(
    lumina: ComposedPipeline, expected: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "x0_estimator", lambda scheduler: 1 / 0)
    state = start(lumina, REQUEST, previews=True)
    lumina.forward(Phase.DENOISE, [state], left(state))
    assert state.preview is None
    assert np.array_equal(finish(lumina, state).pixels, expected.pixels)


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_dropped_request_leaves_neither_thread_nor_tensors(
    lumina: ComposedPipeline, steps: int, shown: bool
) -> None:
    before = set(threading.enumerate())
    gc.collect()
    gc.disable()
    try:
        state = start(lumina, REQUEST, previews=shown)
        (own,) = set(threading.enumerate()) - before
        if steps:
            lumina.forward(Phase.DENOISE, [state], steps)
        assert own.is_alive()
        held = [weakref.ref(state), weakref.ref(state.running()[1])]
        del state
        assert not own.is_alive()
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


def test_an_error_inside_is_that_requests_own(
    lumina: ComposedPipeline, expected: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, other = start(lumina, REQUEST), start(lumina, REQUEST)
    with monkeypatch.context() as broken:
        broken.setattr(lumina.denoiser_module, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lumina.forward(Phase.DENOISE, [failing], 1)
    with pytest.raises(ZeroDivisionError):
        lumina.forward(Phase.DENOISE, [failing], 1)
    lumina.forward(Phase.DENOISE, [other], left(other))
    assert np.array_equal(finish(lumina, other).pixels, expected.pixels)


def test_pixels_that_are_not_finite_are_an_error(
    lumina: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = lumina.components["vae"]
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda *a, **o: (decode(*a, **o)[0] * math.nan,))
    state = start(lumina, REQUEST)
    lumina.forward(Phase.DENOISE, [state], left(state))
    with pytest.raises(GenerationFailed, match=r"not finite .* from decoding"):
        finish(lumina, state)


def test_what_the_class_takes_is_offered_and_nothing_else(pipeline: ComposedPipeline) -> None:
    info = pipeline.model_info("test")
    video = info.tasks == ("text-to-video",)
    known = ("num_frames", "fps") if video else ("max_sequence_length",)
    assert (info.family, info.parameters, info.schedulers) == ("fallback", known, ())
    assert info.defaults.guidance_scale in (4.0, 4.5, 7.5)
    with pytest.raises(InvalidRequest, match="scheduler"):
        start(pipeline, replace(REQUEST, scheduler="euler"))


def test_more_ranks_than_one_are_refused(checkpoints: Checkpoints) -> None:
    mesh = Mesh(world_size=2, cfg=Axis(0, 2))
    device = torch.device("cpu")
    with pytest.raises(InvalidRequest, match=r"num_gpus=2.*fallback.*one rank"):
        load_pipeline(checkpoints("latte"), device=device, dtype=torch.float32, mesh=mesh)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_class_name": "LDMSuperResolutionPipeline"}, "no step callbacks"),
        ({"_class_name": "CosmosTextToWorldPipeline"}, "CosmosSafetyChecker"),
        ({"_class_name": "PIAPipeline"}, "deprecated"),
        ({"_class_name": "LatteImaginaryPipeline"}, "not known"),
        ({"transformer": ["latte_custom", "Transformer"]}, "not an allowed class"),
        ({"transformer": [None, None]}, "needs a transformer"),
        (
            {"transformer": ["diffusers", "Lumina2Transformer2DModel"]},
            "requires LatteTransformer3D",
        ),
        ({"scheduler": ["diffusers", "AutoencoderKL"]}, "scheduler is a AutoencoderKL"),
    ],
    ids=[
        "callbacks",
        "download",
        "deprecated",
        "unknown",
        "custom",
        "missing",
        "denoiser",
        "scheduler",
    ],
)
def test_what_cannot_run_is_refused_when_it_is_loaded(
    checkpoints: Checkpoints, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = shutil.copytree(checkpoints("latte"), tmp_path / "changed")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(InvalidCheckpoint, match=reason):
        load(folder)


def test_the_librarys_own_vae_decodes_in_tiles_what_does_not_fit(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load(checkpoints("lumina2"))
    untiled = run(pipeline, REQUEST)
    vae, calls = pipeline.components["vae"], [0]
    plain = vae.tiled_decode

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return plain(*args, **options)

    monkeypatch.setattr(vae, "tiled_decode", counted)
    pipeline.limit_decoding(10**9)
    assert np.array_equal(run(pipeline, REQUEST).pixels, untiled.pixels)
    assert calls == [0]
    pipeline.limit_decoding(0)
    assert not np.array_equal(run(pipeline, REQUEST).pixels, untiled.pixels)
    assert calls == [1]
    assert not vae.use_tiling
