"""helpers/job_server.py in processes, one after another on the same folder and port."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from http_serving import eventually
from places import FAULTS_FOLDER, HELPERS, python_path

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url

SIZE = {"width": 64, "height": 64}
READY_S = 300


@dataclass
class JobServer:
    """A running server."""

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


class JobServers:
    """Servers whose data lie in `folder / "data"`."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._temporary = folder / "tmp"
        self._temporary.mkdir(exist_ok=True)
        with listen(ServerArgs(port=0)) as free:
            self.url = listener_url(free)

    def begin(self, faults: str = "", **args: Any) -> JobServer:
        """Start one, which isn't ready yet."""
        port = int(self.url.rpartition(":")[2])
        given = {"device": "cpu", "port": port, **args}
        if "ledger" not in args:
            given["data_dir"] = str(self.data)
        environment = {
            "TMPDIR": str(self._temporary),
            "PYTHONPATH": python_path(FAULTS_FOLDER, HELPERS),
        }
        if faults:
            environment["RANK_FAULTS"] = faults
        command = [sys.executable, str(HELPERS / "job_server.py"), json.dumps(given)]
        return JobServer(subprocess.Popen(command, env=os.environ | environment), self.url)

    @contextlib.contextmanager
    def start(self, faults: str = "", **args: Any) -> Iterator[JobServer]:
        """Start one, and wait until it is ready."""
        server = self.begin(faults, **args)
        with server.process:
            try:
                assert eventually(lambda: server.is_ready() or server.has_ended(), READY_S)
                assert not server.has_ended()
                yield server
            finally:
                server.process.kill()
