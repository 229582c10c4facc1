"""Several ranks: the same pictures as one, and errors that stay where they belong."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from engines import assert_all_gone, start_engine, submit_to
from places import FAULTS_FOLDER, python_path

from multimodal_gen.client.request_handle import Update
from multimodal_gen.errors import (
    EngineDied,
    GenerationFailed,
    MultimodalGenError,
    OutOfMemory,
)
from multimodal_gen.launch.engine_process import EngineProcess

FAULTS = (
    "softly=condition:0:raise lonely=prepare:1:raise cramped=condition:0:memory "
    "everywhere=predict:all:raise crowded=predict:all:memory "
    "harshly=predict:1:raise silently=predict:1:hang"
)
GEOMETRIES = {
    "2 ranks share the sequence": {"num_gpus": 2, "ring_degree": 2},
    "2 ranks share the rows": {"num_gpus": 2},
    "4 ranks share rows and sequence": {"num_gpus": 4},
    "2 ranks share the heads": {"num_gpus": 2, "tensor_degree": 2},
    "4 ranks share a sequence of 6 heads": {"num_gpus": 4, "ulysses_degree": 4},
}


@pytest.fixture(scope="module", params=GEOMETRIES.values(), ids=GEOMETRIES.keys())
def ranks(request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    with start_engine(**request.param) as engine:
        yield engine


@pytest.fixture(params=[2, 4], ids=["2 ranks", "4 ranks"])
def faulty(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EngineProcess]:
    # Each rank has all rows, so that a fault of a request is one of every rank.
    ranks = request.param
    with start_faulty(monkeypatch, num_gpus=ranks, ulysses_degree=ranks) as engine:
        yield engine


def start_faulty(monkeypatch: pytest.MonkeyPatch, **args: object) -> EngineProcess:
    monkeypatch.setenv("PYTHONPATH", python_path(FAULTS_FOLDER))
    monkeypatch.setenv("RANK_FAULTS", FAULTS)
    return start_engine(**args)


def test_same_seed_same_picture_on_any_number_of_ranks(
    ranks: EngineProcess, engine: EngineProcess
) -> None:
    wanted = [
        {"width": 96, "height": 96, "seed": 3},
        {"width": 80, "height": 112, "seed": 4, "num_inference_steps": 7},
        {"seed": 5, "negative_prompt": "a dog", "true_cfg_scale": 3.0},
        {"seed": 6, "width": 64, "num_inference_steps": 4, "upscale": "1.5:0.6:5"},
        {"seed": 7, "width": 64, "num_inference_steps": 12, "quality": "fast"},
    ]
    alone = [submit_to(engine, "a pizza", **params).result(200) for params in wanted]
    together = [submit_to(ranks, "a pizza", **params) for params in wanted]
    for one, several in zip(alone, together, strict=True):
        difference = one.pixels.astype(int) - several.result(200).pixels.astype(int)
        assert np.abs(difference).max() <= 1


def test_an_engine_says_how_its_ranks_share_an_evaluation(
    ranks: EngineProcess, engine: EngineProcess
) -> None:
    assert engine.wait_ready(200).sharing == ""
    told = ranks.wait_ready(200).sharing
    assert re.match(rf"{len(ranks.pids)} ranks: (cfg|ulysses|ring|tensor) \d.*an evaluation", told)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_encoders_are_on_one_rank_and_ranks_share_the_pages_of_other_files(
    checkpoints: Callable[..., Path],
) -> None:
    with start_engine(model_path=str(checkpoints("flux-schnell")), num_gpus=2) as engine:
        engine.wait_ready(300)
        first, second = (Path(f"/proc/{pid}/maps").read_text() for pid in engine.pids)
    for component in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        assert f"/{component}/" in first
    assert "/transformer/" in second
    assert "/vae/" in second
    assert "/text_encoder" not in second


def test_ranks_share_the_rows_of_an_adapted_model_too(checkpoints: Callable[..., Path]) -> None:
    pixels = []
    for num_gpus in (1, 2):
        with start_engine(model_path=str(checkpoints("sd15")), num_gpus=num_gpus) as engine:
            wanted = {"width": 64, "height": 72, "num_inference_steps": 3}
            guided = submit_to(engine, "a pizza", guidance_scale=5.0, **wanted)
            plain = submit_to(engine, "a dog", guidance_scale=1.0, scheduler="euler_a", **wanted)
            pixels.append([request.result(200).pixels.astype(int) for request in (guided, plain)])
    for one, several in zip(*pixels, strict=True):
        assert np.abs(one - several).max() <= 1


def test_errors_end_their_request_only_unless_they_are_hard(faulty: EngineProcess) -> None:
    healthy = submit_to(faulty, "a red heart", num_inference_steps=150)
    soft = [
        submit_to(faulty, prompt) for prompt in ("fail softly", "fail lonely", "fail everywhere")
    ]
    for request in soft:
        with pytest.raises(GenerationFailed, match="planted"):
            request.result(200)
    for prompt in ("far too crowded", "far too cramped"):
        with pytest.raises(OutOfMemory):
            submit_to(faulty, prompt).result(200)
    assert healthy.result(200).pixels.any()

    bystander = submit_to(faulty, "a red heart", num_inference_steps=1000, width=128)
    bystander.accepted(200)
    hard = submit_to(faulty, "fail harshly")
    for request in (hard, bystander):
        with pytest.raises(EngineDied):
            request.result(200)
    assert_all_gone(faulty)


def test_a_killed_rank_ends_the_engine_within_2_s(ranks: EngineProcess) -> None:
    """The last test of each geometry: nothing is left of it."""
    request = submit_to(ranks, "a red heart", num_inference_steps=1000)
    next(event for event in request if isinstance(event, Update) and event.step > 0)
    victim = ranks.pids[-1]
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(EngineDied, match=r"rank \[?\d"):
        request.result(200)
    assert time.monotonic() - begun < 2
    assert_all_gone(ranks)
    with pytest.raises(EngineDied):
        submit_to(ranks, "a red heart")


def test_a_silent_rank_ends_the_engine_after_the_step_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_faulty(monkeypatch, num_gpus=2, step_timeout=5.0) as engine:
        engine.wait_ready(300)
        begun = time.monotonic()
        request = submit_to(engine, "fail silently")
        with pytest.raises(EngineDied, match="did not respond"):
            request.result(200)
        assert time.monotonic() - begun > 5
        assert_all_gone(engine)


def test_rank_0_frozen_counts_as_silent() -> None:
    with start_engine(step_timeout=5.0) as engine:
        request = submit_to(engine, "a red heart", num_inference_steps=1000)
        request.accepted(200)
        os.kill(engine.pids[0], signal.SIGSTOP)
        with pytest.raises(EngineDied):
            request.result(200)
        assert_all_gone(engine)


def test_a_rank_that_cannot_load_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(MultimodalGenError, match=r"model_index\.json"),
        start_engine(model_path=str(tmp_path)) as engine,
    ):
        engine.wait_ready(300)
