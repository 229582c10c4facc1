"""kill -9 of ranks and servers: what was accepted ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import submit_to
from http_serving import eventually
from job_server_process import READY_S, SIZE, JobServer, JobServers
from PIL import Image

from multimodal_gen.launch.engine_process import EngineProcess

FAULTS = "poison=predict:all:die"


Start = Callable[..., contextlib.AbstractContextManager[JobServer]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return JobServers(tmp_path).start


def pixels_of(job: dict[str, Any]) -> np.ndarray:
    assert job["status"] == "completed", job["error"]
    with Image.open(job["files"][0]) as image:
        return np.asarray(image).astype(int)


def test_jobs_of_a_killed_server_end_in_order_with_the_pixels_of_an_undisturbed_run(
    start: Start, engine: EngineProcess, tmp_path: Path
) -> None:
    asked = [("a red heart", 400), ("a pizza", 20), ("a dog", 4), ("a rocket", 4)]
    with start(batching_max_size=1) as killed:
        ids = [killed.submit(prompt, num_inference_steps=steps) for prompt, steps in asked]
        assert eventually(lambda: killed.runs(ids[0]) or killed.runs(ids[1]), 300)
        killed.end(signal.SIGKILL)
    with start(batching_max_size=1) as following:
        assert [job["id"] for job in following.jobs()] == ids
        assert eventually(following.all_ended, 300)
        made = following.jobs()
        following.end(signal.SIGTERM)
        assert following.process.returncode == 0
    for job, (prompt, steps) in zip(made, asked, strict=True):
        wanted = submit_to(engine, prompt, seed=3, num_inference_steps=steps, **SIZE).result(300)
        assert np.abs(pixels_of(job) - wanted.pixels[0]).max() <= 1
    left = [
        path
        for path in tmp_path.rglob("*")
        if path.suffix == ".tmp" or "multimodal-gen-" in path.name
    ]
    assert not left
    assert not list((tmp_path / "data" / "pictures").iterdir())


def test_a_request_that_ends_the_engine_twice_fails_and_its_neighbours_succeed(
    start: Start,
) -> None:
    with start(FAULTS) as server:
        neighbours = [server.submit("a dog", num_inference_steps=30)]
        poison = server.submit("poison")
        neighbours.append(server.submit("a pizza", num_inference_steps=4))
        assert eventually(server.all_ended, 300)
        job = server.job(poison)
        assert job["status"] == "failed"
        assert "killed the engine twice" in job["error"]
        for name in neighbours:
            pixels_of(server.job(name))
        assert "the second time alone" in job["error"]
        # The last engine may still be loading.
        assert eventually(lambda: server.restarts() == 2, READY_S)


POISON = {
    "segfault": "killed the engine twice, the second time alone",
    "exit": "killed the engine twice, the second time alone",
    "hang": "killed the engine twice, the second time alone",
    "memory": "memory",
    "thread": None,
}
"""How a request may go wrong, and what its error says; None: it does no harm."""


@pytest.mark.parametrize("num_gpus", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_poison_of_five_kinds_ends_and_twenty_good_ones_beside_it_succeed(
    start: Start, num_gpus: int
) -> None:
    faults = " ".join(f"{how}=predict:{num_gpus - 1}:{how}:3" for how in POISON)
    faults = faults.replace(f"memory=predict:{num_gpus - 1}:memory", "memory=predict:all:memory")
    # Each rank has all rows, so that a fault of all ranks is one.
    with start(faults, num_gpus=num_gpus, ulysses_degree=num_gpus, step_timeout=10) as server:
        good, poison = [], {}
        for how in POISON:
            good += [server.submit(f"a dog {i}", num_inference_steps=8) for i in range(4)]
            poison[how] = server.submit(how, num_inference_steps=8)
        assert eventually(server.all_ended, 600)
        for name in good:
            pixels_of(server.job(name))
        for how, reason in POISON.items():
            job = server.job(poison[how])
            assert job["status"] == ("completed" if reason is None else "failed"), job
            assert reason is None or reason in job["error"]
        assert eventually(server.is_ready, READY_S)
        deadly = sum("twice" in (reason or "") for reason in POISON.values())
        assert deadly < server.restarts() <= 2 * deadly
