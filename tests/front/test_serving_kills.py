"""kill -9 of ranks and servers: what was accepted ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest
from engines import submit_to
from http_serving import eventually
from PIL import Image
from places import FAULTS_FOLDER, HELPERS, python_path

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url
from multimodal_gen.launch.engine_process import EngineProcess

FAULTS = "poison=predict:all:die"
SIZE = {"width": 64, "height": 64}
READY_S = 300


@dataclass
class JobServer:
    """helpers/job_server.py in a process of its own, and what it was given."""

    process: subprocess.Popen[bytes]
    url: str

    def submit(self, prompt: str, **params: Any) -> str:
        given = {"prompt": prompt, "seed": 3, **SIZE, **params}
        return (
            httpx2.post(f"{self.url}/jobs", json=given, timeout=30).raise_for_status().json()["id"]
        )

    def jobs(self) -> list[dict[str, Any]]:
        """In order of acceptance."""
        return httpx2.get(f"{self.url}/jobs", timeout=30).raise_for_status().json()

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in self.jobs() if job["id"] == job_id)

    def runs(self, job_id: str) -> bool:
        job = self.job(job_id)
        return job["status"] == "in_progress" and job["progress"] > 0

    def all_ended(self) -> bool:
        return all(job["status"] in ("completed", "failed") for job in self.jobs())

    def restarts(self) -> int:
        return int(httpx2.get(f"{self.url}/health", timeout=30).json()["restarts"])

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/health", timeout=5).is_success
        return False

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ranks(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def end(self, number: int) -> None:
        """End the server by a signal; neither it nor a rank is left."""
        ranks = self.ranks()
        self.process.send_signal(number)
        self.process.wait(60)
        assert eventually(lambda: not any(psutil.pid_exists(pid) for pid in ranks), 60)


Start = Callable[..., contextlib.AbstractContextManager[JobServer]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server on a folder and a port that stay the same; and waits until it is ready."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with listen(ServerArgs(port=0)) as free:
        url = listener_url(free)

    @contextlib.contextmanager
    def started(faults: str = "", **args: Any) -> Iterator[JobServer]:
        port = int(url.rpartition(":")[2])
        given = {"device": "cpu", "port": port, "data_dir": str(tmp_path / "data"), **args}
        environment = {"TMPDIR": str(temporary), "PYTHONPATH": python_path(FAULTS_FOLDER, HELPERS)}
        if faults:
            environment["RANK_FAULTS"] = faults
        command = [sys.executable, str(HELPERS / "job_server.py"), json.dumps(given)]
        with subprocess.Popen(command, env=os.environ | environment) as process:
            try:
                server = JobServer(process, url)
                assert eventually(lambda: server.is_ready() or server.has_ended(), READY_S)
                assert not server.has_ended()
                yield server
            finally:
                process.kill()

    return started


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
