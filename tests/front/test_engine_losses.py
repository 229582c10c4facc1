"""An engine that loses any of its processes, in a step or idle, ends at once and says why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from engines import assert_all_gone, start_engine, submit_to

from multimodal_gen.client.request_handle import Update
from multimodal_gen.errors import EngineDied
from multimodal_gen.launch.engine_process import EngineProcess

NOTICED_S = 5.0
"""Three seconds, and what a busy machine adds."""
VICTIMS: dict[str, Callable[[EngineProcess], int]] = {
    "the scheduler": lambda engine: engine.scheduler_pid,
    "rank 0": lambda engine: engine.pids[0],
    "rank 1": lambda engine: engine.pids[1],
}
HOW = {signal.SIGKILL: "was killed by SIGKILL", signal.SIGSTOP: "is silent"}


def lose(engine: EngineProcess, victim: str, how: signal.Signals, *, in_a_step: bool) -> None:
    """Check that the loss is noticed in time, named, and leaves nothing."""
    engine.wait_ready(300)
    request = submit_to(engine, "a red heart", num_inference_steps=1000) if in_a_step else None
    if request is not None:
        next(event for event in request if isinstance(event, Update) and event.step > 0)
    os.kill(VICTIMS[victim](engine), how)
    begun = time.monotonic()
    error = engine.wait_lost()
    assert time.monotonic() - begun < NOTICED_S
    assert isinstance(error, EngineDied)
    assert f"{victim} {HOW[how]}" in error.message
    assert_all_gone(engine, within_s=0)
    if request is not None:
        with pytest.raises(EngineDied, match=f"{victim} {HOW[how]}"):
            request.result(5)


@pytest.mark.parametrize(
    ("victim", "how"), [("the scheduler", signal.SIGKILL), ("rank 0", signal.SIGSTOP)]
)
def test_a_loss_of_an_idle_engine_is_noticed(victim: str, how: signal.Signals) -> None:
    with start_engine() as engine:
        lose(engine, victim, how, in_a_step=False)


@pytest.mark.slow
@pytest.mark.parametrize("in_a_step", [False, True], ids=["idle", "in a step"])
@pytest.mark.parametrize("num_gpus", [1, 2])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("victim", VICTIMS)
def test_any_loss_is_noticed(
    victim: str, how: signal.Signals, num_gpus: int, in_a_step: bool
) -> None:
    if victim == "rank 1" and num_gpus == 1:
        pytest.skip("there is one rank")
    with start_engine(num_gpus=num_gpus) as engine:
        lose(engine, victim, how, in_a_step=in_a_step)


def test_a_rank_ends_without_the_scheduler_though_its_parent_lives() -> None:
    """As on another machine, where nobody else ends it."""
    with start_engine() as engine:
        engine.wait_ready(300)
        submit_to(engine, "a red heart", num_inference_steps=1000).accepted(60)
        rank = psutil.Process(engine.pids[0])
        engine._closing.set()  # The launcher looks away.
        engine._watcher.join()
        os.kill(engine.scheduler_pid, signal.SIGSTOP)
        rank.wait(NOTICED_S)
        engine._closing.clear()
