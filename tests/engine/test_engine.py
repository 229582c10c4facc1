"""The engine as a client sees it: real ranks, real sockets, the bundled model."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import zmq
from engines import sharing_happens, start_engine, submit_to

from multimodal_gen.client.request_handle import Output, RequestHandle, Update
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, DeadlineExceeded, InvalidRequest, QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.rank_args import token_file
from multimodal_gen.messages.reply import Evaluations
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of

Submit = Callable[..., RequestHandle]
LONG = 1000
"""Steps of a request that is still running when a test looks at it."""


@pytest.fixture
def submit(engine: EngineProcess) -> Submit:
    return lambda *args, **params: submit_to(engine, *args, **params)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b.astype(int)).max() <= 1)


def test_ready_tells_what_the_model_is(engine: EngineProcess) -> None:
    model = engine.wait_ready(300)
    assert (model.family, model.defaults.width, model.size_multiple) == ("flux", 96, 16)
    assert engine.client.num_ranks == 1


def test_a_request_ends_with_its_pixels(submit: Submit) -> None:
    output = submit(width=64, height=96).result(300)
    assert output.pixels.shape == (1, 96, 64, 3)
    assert output.pixels.dtype == np.uint8
    assert output.seed == 1
    assert output.batch_sizes == [1] * 20
    assert output.evaluations == Evaluations(computed=20, extrapolated=0)
    assert {"queued", "encode", "denoise", "decode", "total"} <= set(output.timings)


def test_progress_is_told_up_to_the_last_step(submit: Submit) -> None:
    events = list(submit(num_inference_steps=200))
    updates = [event for event in events if isinstance(event, Update)]
    steps = [update.step for update in updates]
    assert steps == sorted(steps)
    assert updates[-1].total == 200
    assert isinstance(events[-1], Output)


def test_same_seed_same_picture_in_a_mixed_batch(submit: Submit) -> None:
    alone = submit(num_inference_steps=30).result(300)

    def beside_others() -> list[int]:
        neighbours = [submit("a pizza", seed=2, num_inference_steps=n) for n in (25, 60)]
        joined = submit(num_inference_steps=30).result(300)
        for neighbour in neighbours:
            neighbour.result(300)
        assert close(alone.pixels, joined.pixels)
        return joined.batch_sizes

    assert sharing_happens(beside_others)


@pytest.mark.parametrize("quality", ["exact", "fast"])
def test_same_seed_same_picture_when_preempted(submit: Submit, quality: str) -> None:
    alone = submit(num_inference_steps=120, quality=quality).result(300)
    preempted = submit(num_inference_steps=120, quality=quality, priority="low")
    other_size = submit("a dog", width=128, num_inference_steps=10, priority="high")
    assert other_size.result(300).timings["total"] < preempted.result(300).timings["total"]
    assert close(alone.pixels, preempted.result(300).pixels)


def test_same_seed_same_picture_when_a_neighbour_is_cancelled(submit: Submit) -> None:
    alone = submit(num_inference_steps=60).result(300)
    neighbour = submit("a pizza", seed=2, num_inference_steps=LONG)
    request = submit(num_inference_steps=60)
    for event in neighbour:
        if isinstance(event, Update) and event.step > 5:
            break
    neighbour.cancel()
    with pytest.raises(Cancelled):
        neighbour.result(300)
    assert close(alone.pixels, request.result(300).pixels)


def test_a_cancelled_request_ends_once_and_frees_its_place(
    engine: EngineProcess, submit: Submit
) -> None:
    request = submit(num_inference_steps=LONG)
    request.accepted(300)
    request.cancel()
    request.cancel()
    with pytest.raises(Cancelled):
        request.result(300)
    health = engine.client.health(60)
    assert (health.running, health.waiting) == (0, 0)


def test_a_repeated_id_is_the_same_request(engine: EngineProcess) -> None:
    params = SamplingParams(prompt="a red heart", num_inference_steps=LONG)
    (req,) = requests_of(params, engine.wait_ready(300))
    first, second = engine.client.submit(req), engine.client.submit(req)
    assert first is second
    first.cancel()
    with pytest.raises(Cancelled):
        second.result(300)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(submit: Submit) -> None:
    submit().result(300)
    with pytest.raises(DeadlineExceeded):
        submit(num_inference_steps=1000, deadline_s=0.01).accepted(300)


def test_bad_values_are_refused_by_rank_0_too(engine: EngineProcess, submit: Submit) -> None:
    (req,) = requests_of(SamplingParams(prompt="x"), engine.wait_ready(300))
    for field, value in [("width", 10_000), ("num_inference_steps", 0), ("scheduler", "nope")]:
        bad = Req(id=f"bad-{field}", params=replace(req.params, **{field: value}))
        with pytest.raises(InvalidRequest, match=field):
            engine.client.submit(bad).result(300)


def test_many_threads_share_batches(engine: EngineProcess) -> None:
    def make(seed: int) -> Output:
        return submit_to(engine, "a pizza", seed=seed, num_inference_steps=40).result(300)

    def side_by_side() -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            outputs = list(pool.map(make, range(8)))
        assert [output.seed for output in outputs] == list(range(8))
        return [size for output in outputs for size in output.batch_sizes]

    assert sharing_happens(side_by_side)


def test_coroutines_share_one_client(engine: EngineProcess) -> None:
    async def all_of_them() -> list[Output]:
        handles = [submit_to(engine, seed=seed) for seed in range(3)]
        return await asyncio.gather(*(handle.aresult() for handle in handles))

    assert [output.seed for output in asyncio.run(all_of_them())] == [0, 1, 2]


def test_a_client_that_leaves_has_its_requests_cancelled(engine: EngineProcess) -> None:
    model = engine.wait_ready(300)
    with SchedulerClient(engine.address) as other:
        other.wait_ready(300)
        (req,) = requests_of(SamplingParams(prompt="x", num_inference_steps=LONG), model)
        other.submit(req).accepted(300)
    end = time.monotonic() + 60
    while alive(engine) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(engine) == 0


def alive(engine: EngineProcess) -> int:
    """Requests that run or wait in the engine."""
    health = engine.client.health(60)
    return health.running + health.waiting


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x93garbage"],
        [os.urandom(1000)],
        [msgspec.msgpack.encode({"type": "submit", "req": {"id": 7}})],
        [msgspec.msgpack.encode({"type": "unknown"})],
        [b"\x81" * 100_000],
        [b"", b"", b""],
        [msgspec.msgpack.encode({"type": "hello"}), b"x"],
        [bytes(100 * 2**20)],
    ],
    ids=["empty", "bad", "random", "types", "tag", "deep", "parts", "frame", "100MB"],
)
def test_garbage_on_the_socket_disturbs_nobody(
    engine: EngineProcess, submit: Submit, frames: list[bytes]
) -> None:
    running = submit(num_inference_steps=40)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.IDENTITY, token_file(engine.address).read_bytes() + b"peer")
        socket.linger = 0
        socket.connect(engine.address)
        socket.send_multipart(frames)
        if len(frames[0]) < 2**20:
            assert socket.poll(30_000), "no answer to garbage"
    assert running.result(300).pixels.shape == (1, 96, 96, 3)


def test_a_full_queue_says_when_to_try_again(engine: EngineProcess, submit: Submit) -> None:
    size = engine.args.max_queue_size
    taken = [submit(num_inference_steps=LONG, seed=seed) for seed in range(size)]
    for request in taken:
        request.accepted(300)
    with pytest.raises(QueueFull) as refused:
        submit().accepted(300)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    for request in taken:
        request.cancel()
    for request in taken:
        with pytest.raises(Cancelled):
            request.result(300)


def test_threads_may_wait_for_one_generation(submit: Submit) -> None:
    handle = submit()
    outputs: list[Output] = []
    threads = [threading.Thread(target=lambda: outputs.append(handle.result(300))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs[0] is outputs[1]


def test_more_outputs_than_the_queue_can_ever_take_are_refused_for_good() -> None:
    with start_engine(max_queue_size=3) as engine:
        model = engine.wait_ready(300)
        assert len(requests_of(SamplingParams(num_outputs_per_prompt=3), model)) == 3
        with pytest.raises(InvalidRequest, match="num_outputs_per_prompt=4: must be 1 to 3"):
            requests_of(SamplingParams(num_outputs_per_prompt=4), model)
