"""`serve` in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import psutil
from http_serving import eventually

PROGRAM = """
import json, sys
from multimodal_gen import ServerArgs
from multimodal_gen.entrypoints.http.server import serve
sys.exit(serve(ServerArgs(device="cpu", **json.loads(sys.argv[1]))))
"""
LOADING_S = 120


@dataclass
class Served:
    process: subprocess.Popen[str]

    @functools.cached_property
    def url(self) -> str:
        """Where it listens, which it does before it says so."""
        assert eventually(lambda: bool(self._listening()), LOADING_S)
        ((host, port),) = self._listening()
        return f"http://{host}:{port}"

    def _listening(self) -> list[tuple[str, int]]:
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30)

    def ready_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def rank_pids(self) -> list[int]:
        """Of those that have become ranks."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if is_rank(child)]

    def is_running(self) -> bool:
        """Whether its engine has begun a request."""
        return bool(self.get("/health").json().get("running"))

    def generate(self, **extra: Any) -> Any:
        options: dict[str, Any] = {"base_url": f"{self.url}/v1", "api_key": "-", "max_retries": 0}
        with openai.OpenAI(**options) as client:
            return client.images.generate(prompt="a red heart", extra_body=extra)


@contextlib.contextmanager
def started(**args: Any) -> Iterator[Served]:
    """`serve` in a process of its own, on any free port."""
    command = [sys.executable, "-c", PROGRAM, json.dumps({"port": 0, **args})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Served(process)
        finally:
            process.kill()


def is_rank(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "multimodal_gen.runtime.rank" in child.cmdline()
    return False
