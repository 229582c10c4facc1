"""Fronts, ranks and the database are killed at random: nothing is lost, or ends twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from engines import submit_to
from front_processes import FrontProcess, SharedLoad
from http_serving import eventually
from job_server_process import READY_S, SIZE
from PIL import Image
from postgres_server import Database
from shown_ends import FINAL
from webhook_receiver import SECRET, Receiver

from multimodal_gen.launch.engine_process import EngineProcess

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CHAOS_KILLS", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "18"))
FRONTS = int(os.environ.get("CHAOS_FRONTS", "2"))
FROZEN_S = 5.0
"""Longer than a lease."""


@contextlib.contextmanager
def several(tmp_path: Path, database: Database, **args: Any) -> Iterator[list[FrontProcess]]:
    shared = {"ledger": database.schema(), "results": f"file://{tmp_path}/shared", **args}
    fronts = [FrontProcess.start(tmp_path / str(number), **shared) for number in range(FRONTS)]
    try:
        yield fronts
    finally:
        for front in fronts:
            front.kill()


def do_harm(fronts: list[FrontProcess], database: Database, dice: random.Random) -> str:
    front, what = dice.choice(fronts), dice.random()
    if what < 0.45:
        front.kill()
        return "front"
    if what < 0.75:
        return "rank" if front.kill_rank(dice) else "nothing"
    if what < 0.9:
        database.stop()
        time.sleep(dice.uniform(0, 3))
        database.start()
        return "database"
    if front.running.has_ended():
        return "nothing"
    front.freeze(FROZEN_S)
    return "frozen"


@contextlib.contextmanager
def in_threads(load: SharedLoad, *loops: Any) -> Iterator[None]:
    threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(30)


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def wrong_pixels(jobs: list[dict[str, Any]], load: SharedLoad, engine: EngineProcess) -> list[str]:
    """Ids of jobs whose picture is not that of an undisturbed engine."""
    wanted: dict[tuple[str, int], np.ndarray] = {}
    wrong = []
    for job in jobs:
        if job["status"] == "completed" and job["id"] in load.accepted:
            prompt, steps = asked = load.accepted[job["id"]]
            if asked not in wanted:
                made = submit_to(engine, prompt, seed=1, num_inference_steps=steps, **SIZE)
                wanted[asked] = made.result(300).pixels[0].astype(int)
            if np.abs(pixels(job["files"][0]) - wanted[asked]).max() > 1:
                wrong.append(job["id"])
    return wrong


def test_random_kills_of_fronts_ranks_and_the_database_lose_nothing(
    tmp_path: Path, database: Database, engine: EngineProcess
) -> None:
    receiver, dice, kills = Receiver(), random.Random(SEED + 2), Counter[str]()
    told = {"webhook_url": receiver.url, "webhook_secret": SECRET}
    with several(tmp_path, database, **told) as fronts:
        load = SharedLoad([front.url for front in fronts], SEED, pause_s=0.2)
        with in_threads(load, load.submit, load.watch):
            while kills.total() - kills["nothing"] < KILLS:
                for front in fronts:
                    front.revive()
                if dice.random() < 0.7:
                    dice.choice(fronts).wait_ready(READY_S)
                time.sleep(dice.uniform(0, 3))
                kills[do_harm(fronts, database, dice)] += 1
        assert all(front.wait_ready(READY_S) for front in fronts)
        done = f"{fronts[0].url}/jobs"

        def all_ended() -> bool:
            jobs = load.look(httpx2.get(done, timeout=30))
            return all(job["status"] in FINAL for job in jobs)

        assert eventually(all_ended, 600)
        jobs = load.look(httpx2.get(done, timeout=30))
        ids = {job["id"] for job in jobs if job["status"] in ("completed", "failed")}
        eventually(lambda: ids <= {event["data"]["id"] for event in receiver.events}, 90)
        posts = Counter(event["data"]["id"] for event in receiver.events)
        report = {
            "kills": kills,
            "accepted": len(load.accepted),
            "refused": load.refused,
            "ends": Counter(job["status"] for job in jobs),
            "reasons": Counter((job["error"] or "")[:60] for job in jobs),
            "lost": len(set(load.accepted) - {job["id"] for job in jobs}),
            "ended twice": len(load.changed),
            "wrong pixels": len(wrong_pixels(jobs, load, engine)),
            "events not posted": len(ids - posts.keys()),
            "events posted twice": sum(count > 1 for count in posts.values()),
            "refusals without a time": len(load.wrong),
        }
        print(json.dumps(report, indent=1))
        for name in ("lost", "ended twice", "wrong pixels", "events not posted"):
            assert report[name] == 0, name
        assert not load.wrong
        assert report["ends"]["completed"] > report["ends"]["failed"]  # type: ignore[index]
        left = [path for path in (tmp_path / "shared" / "pictures").rglob("*") if path.is_file()]
        assert not left


def test_without_the_database_for_20_seconds_running_jobs_go_on_and_new_ones_are_told_to_come_back(
    tmp_path: Path, database: Database
) -> None:
    with several(tmp_path, database) as fronts:
        assert all(front.wait_ready(READY_S) for front in fronts)
        first = fronts[0]
        job = first.running.submit("a red heart", num_inference_steps=60)
        assert eventually(lambda: first.running.job(job)["status"] == "in_progress", 60)
        database.stop()
        stopped_at = time.monotonic()
        try:
            for front in fronts:
                refused = httpx2.post(f"{front.url}/jobs", json={"prompt": "a"}, timeout=15)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                health = httpx2.get(f"{front.url}/health", timeout=5)
                assert (health.status_code, health.json()["ledger"]) == (200, "unreachable")
            time.sleep(max(0.0, stopped_at + 20 - time.monotonic()))
        finally:
            database.start()
        for front in fronts:
            assert eventually(
                lambda front=front: (
                    httpx2.get(f"{front.url}/health", timeout=5).json()["ledger"] == "reachable"
                ),
                30,
            )
            assert eventually(lambda front=front: front.running.job(job)["status"] in FINAL, 60)
            assert front.running.job(job)["status"] == "completed"
