"""The fallback inside a real engine: progress, cancelling, turns, and an end in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from engines import start_engine, submit_to

from multimodal_gen.client.request_handle import Output, Update
from multimodal_gen.errors import Cancelled
from multimodal_gen.launch import engine_process
from multimodal_gen.launch.engine_process import EngineProcess

SIZE = {"width": 64, "height": 48}
LONG = 900
"""Steps of a request that is still running when a test looks at it."""


@pytest.fixture(scope="module")
def engine(checkpoints: Callable[..., Path]) -> Iterator[EngineProcess]:
    with start_engine(model_path=str(checkpoints("lumina2"))) as engine:
        yield engine


def test_the_model_says_that_it_is_a_fallback(engine: EngineProcess) -> None:
    assert engine.wait_ready(300).family == "fallback"


def test_progress_is_told_step_by_step(engine: EngineProcess) -> None:
    events = list(submit_to(engine, num_inference_steps=300, **SIZE))
    updates = [event for event in events if isinstance(event, Update)]
    assert len({update.step for update in updates}) > 1
    assert updates[-1].total == 300
    assert isinstance(events[-1], Output)
    assert events[-1].pixels.shape == (1, 48, 64, 3)
    assert events[-1].batch_sizes == [1] * 300


def test_a_request_that_overtakes_another_changes_nothing_of_it(engine: EngineProcess) -> None:
    alone = submit_to(engine, num_inference_steps=60, **SIZE).result(300)
    slow = submit_to(engine, num_inference_steps=60, priority="low", **SIZE)
    for event in slow:
        if isinstance(event, Update) and event.step > 3:
            break
    fast = submit_to(engine, "a dog", num_inference_steps=10, priority="high", **SIZE)
    assert fast.result(300).timings["total"] < slow.result(300).timings["total"]
    assert np.array_equal(slow.result(300).pixels, alone.pixels)


def test_a_cancelled_request_ends_and_its_thread_with_it(engine: EngineProcess) -> None:
    rank = psutil.Process(engine.pids[0])
    request = submit_to(engine, num_inference_steps=LONG, **SIZE)
    for event in request:
        if isinstance(event, Update) and event.step > 3:
            break
    busy = rank.num_threads()
    request.cancel()
    with pytest.raises(Cancelled):
        request.result(300)
    end = time.monotonic() + 60
    while rank.num_threads() >= busy and time.monotonic() < end:
        time.sleep(0.05)
    assert rank.num_threads() < busy


def test_an_engine_that_is_closed_in_the_middle_leaves_no_process(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "GRACE_S", 60)
    request = submit_to(engine, num_inference_steps=LONG, **SIZE)
    next(iter(request))
    engine.close()
    with pytest.raises(Cancelled):
        request.result(300)
    assert not any(psutil.pid_exists(pid) for pid in engine.pids)
