"""A real server of two models and two replicas: engines that are killed, restarted, elsewhere."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from http_serving import IMAGES, eventually
from serve_process import LOADING_S, Served, started

from multimodal_gen.launch.model_path import BUNDLED_MODEL

MODELS = [f"first={BUNDLED_MODEL}", f"second={BUNDLED_MODEL}"]


def engines(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.get("/health").json()["engines"]
    return found


def statuses(served: Served) -> set[str]:
    return {each["status"] for each in engines(served)}


@contextmanager
def load(served: Served, ends: list[int]) -> Iterator[None]:
    """Three clients that ask for a picture of either model, again and again."""
    stop = threading.Event()

    def ask(model: str) -> None:
        body = {"prompt": "a red heart", "num_inference_steps": 4, "model": model}
        while not stop.is_set():
            ends.append(httpx2.post(served.url + IMAGES, json=body, timeout=120).status_code)

    clients = [threading.Thread(target=ask, args=(name,)) for name in ("first", "first", "second")]
    for client in clients:
        client.start()
    yield
    stop.set()
    for client in clients:
        client.join()


@pytest.mark.slow
def test_no_request_fails_while_engines_are_killed_and_restarted() -> None:
    ends: list[int] = []
    with started(model=MODELS, replicas=2) as served:
        assert eventually(lambda: statuses(served) == {"ready"}, LOADING_S)
        with load(served, ends):
            assert eventually(lambda: len(ends) > 6, 60)
            os.kill(served.rank_pids()[0], signal.SIGKILL)
            assert eventually(lambda: "restarting" in statuses(served))
            assert eventually(lambda: statuses(served) == {"ready"}, LOADING_S)
            before = set(served.rank_pids())
            served.process.send_signal(signal.SIGHUP)
            assert eventually(
                lambda: not before & set(served.rank_pids()) and statuses(served) == {"ready"},
                2 * LOADING_S,
            )
        assert set(ends) == {200}
