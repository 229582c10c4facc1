"""Kills at random while the ledger is locked and the disk is full: nothing is lost or unended."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from http_serving import eventually
from job_server_process import SIZE, JobServer, JobServers
from shown_ends import FINAL, ShownEnds
from storage_faults import fill, locked, mounted

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CHAOS_KILLS", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "16"))
DISK = "64m"


@dataclass
class Load(ShownEnds):
    """Submits jobs without a pause, each until it is known whether it was accepted."""

    url: str
    accepted: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def submit(self) -> None:
        dice, number = random.Random(SEED), 0
        while not self.stop.is_set():
            steps = dice.choice((1, 2, 4, 30))
            asked = {"prompt": f"job {number}", "seed": 1, "num_inference_steps": steps, **SIZE}
            while not self.stop.is_set() and not self._accepted(asked, f"key-{number}"):
                time.sleep(0.05)
            number += 1

    def watch(self) -> None:
        while not self.stop.wait(0.5):
            with contextlib.suppress(httpx2.HTTPError):
                self.look(httpx2.get(f"{self.url}/jobs", timeout=10))

    def _accepted(self, asked: dict[str, Any], key: str) -> bool:
        try:
            headers = {"idempotency-key": key}
            answer = httpx2.post(f"{self.url}/jobs", json=asked, headers=headers, timeout=10)
        except httpx2.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return False
        if answer.is_success:
            self.accepted.append(answer.json()["id"])
            return True
        self.refused[f"{answer.status_code} {answer.json()['error']['code']}"] += 1
        assert answer.status_code in (429, 503, 507), answer.text
        assert "retry-after" in answer.headers
        assert "x-should-retry" not in answer.headers
        return False


@dataclass
class Faults:
    """Locks the ledger and fills the disk, for moments at random."""

    folder: Path
    own_disk: bool
    stop: threading.Event = field(default_factory=threading.Event)
    made: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        dice = random.Random(SEED + 1)
        while not self.stop.wait(dice.uniform(0.1, 2.0)):
            if dice.random() < 0.5 or not self.own_disk:
                with contextlib.suppress(sqlite3.Error), locked(self.folder):
                    self.made["locked"] += 1
                    self.stop.wait(dice.uniform(0.1, 3.0))
            else:
                filler = fill(self.folder)
                self.made["full"] += 1
                self.stop.wait(dice.uniform(0.1, 2.0))
                filler.unlink(missing_ok=True)


def kill_something(server: JobServer, dice: random.Random) -> str:
    """Kill one of the engine's processes or, mostly, the server."""
    with contextlib.suppress(psutil.NoSuchProcess):
        ranks = server.ranks()
        if ranks and dice.random() < 0.3:
            psutil.Process(dice.choice(ranks)).kill()
            return "rank"
    server.process.kill()
    server.process.wait(60)
    return "server"


@contextlib.contextmanager
def running(*loops: Any, stop: list[threading.Event]) -> Iterator[None]:
    threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for event in stop:
            event.set()
        for thread in threads:
            thread.join(30)


def chaos(servers: JobServers, load: Load, faults: Faults) -> Counter[str]:
    dice, kills = random.Random(SEED + 2), Counter[str]()
    server = servers.begin()
    try:
        with running(load.submit, load.watch, faults.run, stop=[load.stop, faults.stop]):
            while kills.total() < KILLS:
                if server.has_ended():  # Killed, or refused to start on a full disk.
                    server = servers.begin()
                if dice.random() < 0.8:
                    eventually(lambda: server.is_ready() or server.has_ended(), 60)  # noqa: B023
                time.sleep(dice.uniform(0, 2))
                if server.has_ended():
                    continue
                kills[kill_something(server, dice)] += 1
        return kills
    finally:
        server.process.kill()
        server.process.wait(60)


def test_random_kills_with_faults_in_the_ledger_lose_nothing(tmp_path: Path) -> None:
    servers = JobServers(tmp_path)
    load = Load(servers.url)
    with mounted(servers.data, DISK) as own_disk:
        faults = Faults(servers.data, own_disk)
        kills = chaos(servers, load, faults)
        with servers.start() as server:
            assert eventually(server.all_ended, 300)
            jobs = load.look(httpx2.get(f"{servers.url}/jobs", timeout=30))
            ends = Counter(job["status"] for job in jobs)
            reasons = Counter((job["error"] or "")[:60] for job in jobs)
            lost = set(load.accepted) - {job["id"] for job in jobs}
            report = {
                "kills": kills,
                "faults": faults.made,
                "accepted": len(load.accepted),
                "refused": load.refused,
                "ends": ends,
                "reasons": reasons,
                "lost": len(lost),
                "ended twice": len(load.changed),
            }
            print(json.dumps(report, indent=1))
            assert not lost
            assert not load.changed
            assert set(ends) <= set(FINAL)
            assert ends["completed"] > ends["failed"]
            assert not list((servers.data / "pictures").iterdir())
