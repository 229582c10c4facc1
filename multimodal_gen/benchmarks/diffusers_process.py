"""Driver side of the process that runs stock diffusers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from multimodal_gen.benchmarks.protocol import BaselineReady, Load, Question, Ran, Run
from multimodal_gen.benchmarks.workload import BenchmarkRequest
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.child_environment import child_environment

_A = TypeVar("_A", BaselineReady, Ran)
MODULE = "multimodal_gen.benchmarks.diffusers_baseline"


class DiffusersProcess:
    """Runs jobs with diffusers in the environment of a rank. A context manager."""

    def __init__(self, folder: str, device: str, dtype: str) -> None:
        """Start the process and wait until it has loaded. Raises MultimodalGenError if it exits
        early."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        self.loaded = self._ask(Load(folder, device, dtype), BaselineReady)

    def __enter__(self) -> DiffusersProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def seconds(self, requests: Sequence[BenchmarkRequest], *, as_batch: bool = False) -> float:
        """Seconds to generate these images, in one call or one after another."""
        run = Run(
            prompts=[request.prompt for request in requests],
            seeds=[request.seed for request in requests],
            settings=requests[0].settings,
            as_batch=as_batch,
        )
        return self._ask(run, Ran).seconds

    def _ask(self, question: Question, kind: type[_A]) -> _A:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise MultimodalGenError(f"the diffusers process exited with status {status}")
        return msgspec.json.decode(line, type=kind)
