"""Several `serve` processes over one PostgreSQL ledger, and a load on all of them."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from http_serving import eventually
from job_server_process import SIZE, JobServer, JobServers
from shown_ends import ShownEnds

STEPS = (1, 2, 4, 30)
PROMPTS = ("a red heart", "a pizza", "a dog", "a rocket")


@dataclass
class FrontProcess:
    """A front that is started again after each death."""

    servers: JobServers
    args: dict[str, Any]
    running: JobServer

    @classmethod
    def start(cls, folder: Path, **args: Any) -> FrontProcess:
        folder.mkdir(parents=True, exist_ok=True)
        servers = JobServers(folder)
        return cls(servers, args, servers.begin(**args))

    @property
    def url(self) -> str:
        return self.servers.url

    def revive(self) -> None:
        if self.running.has_ended():
            self.running = self.servers.begin(**self.args)

    def wait_ready(self, seconds: float) -> bool:
        def ready() -> bool:
            self.revive()
            return self.running.is_ready()

        return eventually(ready, seconds)

    def kill(self) -> None:
        self.running.process.kill()
        self.running.process.wait(60)

    def kill_rank(self, dice: random.Random) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            if ranks := self.running.ranks():
                psutil.Process(dice.choice(ranks)).kill()
                return True
        return False

    def freeze(self, seconds: float) -> None:
        """Stop the front's process for a while; its engine goes on."""
        self.running.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.running.process.send_signal(signal.SIGCONT)


@dataclass
class SharedLoad(ShownEnds):
    """Submits jobs to any front, each until it is known that one has accepted it."""

    urls: list[str]
    seed: int
    pause_s: float = 0.0
    accepted: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By id: prompt and steps."""
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Refusals that don't say when to come back."""
    stop: threading.Event = field(default_factory=threading.Event)

    def submit(self) -> None:
        dice, number = random.Random(self.seed), 0
        while not self.stop.wait(self.pause_s):
            asked = (dice.choice(PROMPTS), dice.choice(STEPS))
            while not self.stop.is_set() and not self._accepted(dice, asked, f"key-{number}"):
                time.sleep(0.1)
            number += 1

    def watch(self) -> None:
        dice = random.Random(self.seed + 1)
        while not self.stop.wait(0.5):
            with contextlib.suppress(httpx2.HTTPError):
                self.look(httpx2.get(f"{dice.choice(self.urls)}/jobs", timeout=10))

    def _accepted(self, dice: random.Random, asked: tuple[str, int], key: str) -> bool:
        prompt, steps = asked
        body = {"prompt": prompt, "seed": 1, "num_inference_steps": steps, **SIZE}
        try:
            answer = httpx2.post(
                f"{dice.choice(self.urls)}/jobs",
                json=body,
                headers={"idempotency-key": key},
                timeout=10,
            )
        except httpx2.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return False
        if answer.is_success:
            self.accepted[answer.json()["id"]] = asked
            return True
        self.refused[f"{answer.status_code} {answer.json()['error']['code']}"] += 1
        if answer.status_code not in (429, 503) or "retry-after" not in answer.headers:
            self.wrong.append(answer.text)
        return False
