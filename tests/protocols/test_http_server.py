"""The life of a server's process: probes, signals, dead ranks and starts that fail."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from http_serving import eventually
from serve_process import LOADING_S, Served, started

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.server import serve
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url
from multimodal_gen.errors import InvalidRequest

LONG = {"num_inference_steps": 1000, "seed": 1, "size": "128x128"}
MIDDLING = {"num_inference_steps": 300, "seed": 1}


@contextlib.contextmanager
def slowed(pids: list[int]) -> Iterator[None]:
    """What these processes do hardly gets on meanwhile; now and then they answer heartbeats."""
    done = threading.Event()

    def hold() -> None:
        while not done.is_set():
            for number, seconds in ((signal.SIGSTOP, 0.5), (signal.SIGCONT, 0.03)):
                for pid in pids:
                    os.kill(pid, number)
                done.wait(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        yield
    finally:
        done.set()
        holding.join()


def in_flight(served: Served, ends: list[Any], **extra: Any) -> threading.Thread:
    """A request that the engine has begun; what it ends with goes to `ends`."""

    def run() -> None:
        try:
            ends.append(served.generate(**extra))
        except openai.APIError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(served.is_running)
    return thread


def test_probes_tell_the_truth_while_a_dead_rank_is_replaced_and_its_request_replayed() -> None:
    replies: list[Any] = []
    with started() as served:
        assert eventually(lambda: bool(served.rank_pids()), LOADING_S)
        with slowed(served.rank_pids()):  # It loads for as long as is looked at it.
            assert served.get("/liveness").is_success
            loading = served.get("/health")
            assert (loading.status_code, loading.json()["status"]) == (503, "loading")
            assert loading.json()["error"]["code"] == "engine_not_ready"
            with pytest.raises(openai.InternalServerError) as early:
                served.generate()
            assert (early.value.status_code, early.value.code) == (503, "engine_not_ready")

        assert served.ready_line() == f"multimodal-gen: serving bundled_model at {served.url}\n"
        ready = served.get("/health").json()
        assert (ready["status"], ready["model"], ready["ranks"]) == ("ready", "bundled_model", 1)
        undisturbed = served.generate(**MIDDLING)

        request, (rank,) = in_flight(served, replies, **MIDDLING), served.rank_pids()
        os.kill(rank, signal.SIGSTOP)
        busy = served.get("/health").json()  # it waits for no answer of the rank
        assert (busy["status"], busy["running"] + busy["waiting"]) == ("ready", 1)
        os.kill(rank, signal.SIGKILL)
        told: list[httpx2.Response] = []

        def is_restarting() -> bool:
            told.append(served.get("/health"))
            return told[-1].status_code == 503

        assert eventually(is_restarting)
        dead = told[-1]
        assert dead.json()["status"] == "restarting"
        assert "rank 0 was killed by SIGKILL" in dead.json()["reason"]
        assert served.get("/liveness").is_success
        request.join(300)
        assert [reply.data[0].b64_json for reply in replies] == [undisturbed.data[0].b64_json]
        back = served.get("/health").json()
        assert (back["status"], back["restarts"], back["reason"]) == ("ready", 1, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end_and_takes_nothing_more(number: int) -> None:
    replies: list[Any] = []
    with started(drain_timeout=300) as served:
        served.ready_line()
        request, ranks = in_flight(served, replies, **MIDDLING), served.rank_pids()
        with slowed(ranks):  # Else it might be over before it is looked at.
            served.process.send_signal(number)
            assert eventually(lambda: served.get("/health").json()["status"] == "stopping")
            assert served.get("/health").json()["ranks"] == len(ranks)
            with pytest.raises(openai.InternalServerError) as late:
                served.generate()
            assert (late.value.status_code, late.value.code) == (503, "engine_not_ready")
            assert int(late.value.response.headers["retry-after"]) >= 1
        assert served.process.wait(360) == 0
        request.join(30)
    assert [len(reply.data) for reply in replies] == [1]
    assert ranks
    assert not any(psutil.pid_exists(pid) for pid in ranks)


def test_what_runs_longer_than_the_grace_is_told_that_the_server_stops() -> None:
    errors: list[Any] = []
    with started(drain_timeout=0.2) as served:
        served.ready_line()
        request, ranks = in_flight(served, errors, **LONG), served.rank_pids()
        served.process.terminate()
        assert served.process.wait(60) == 0
        request.join(30)
    assert [(error.status_code, error.code) for error in errors] == [(503, "engine_not_ready")]
    assert not any(psutil.pid_exists(pid) for pid in ranks)


def test_a_second_signal_ends_the_grace() -> None:
    errors: list[Any] = []
    with started() as served:
        served.ready_line()
        request = in_flight(served, errors, **LONG)
        served.process.terminate()
        assert eventually(lambda: served.get("/health").json()["status"] == "stopping")
        served.process.terminate()
        assert served.process.wait(60) == 0
        request.join(30)
    assert [error.status_code for error in errors] == [503]


def test_a_signal_while_loading_ends_server_and_ranks() -> None:
    with started() as served:
        assert eventually(lambda: bool(served.rank_pids()), LOADING_S)
        assert served.get("/liveness").is_success
        ranks = served.rank_pids()
        served.process.terminate()
        assert served.process.wait(60) == 0
    assert eventually(lambda: not any(psutil.pid_exists(pid) for pid in ranks))


def test_a_model_that_can_not_be_loaded_ends_the_server(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    with started(model_path=str(tmp_path)) as served:
        assert served.process.wait(LOADING_S) == 1
    assert "NoSuchPipeline" in capfd.readouterr().err


def test_a_model_that_is_not_there_ends_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    with started(model_path="/no/such/model") as served:
        assert served.process.wait(60) == 1
    assert "multimodal-gen: model_path='/no/such/model'" in capfd.readouterr().err


def test_a_port_in_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with listen(ServerArgs(port=0)) as taken:
        port = taken.getsockname()[1]
        assert serve(ServerArgs(port=port)) == 1
    assert f"port {port}: " in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        serve(ServerArgs(host=host, port=0))
    assert caught.value.field == "host"


def test_with_a_key_any_address_is_fine() -> None:
    with listen(ServerArgs(host="0.0.0.0", port=0, api_key="key")) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_loopback_needs_no_key_by_any_of_its_names() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        with listen(ServerArgs(host=host, port=0)) as listener:
            assert listener_url(listener).startswith("http://")
