"""A rank's worker, given plans without an engine around it."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
from engineless import load
from torch import Tensor

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.plan import Ack, Phase, Plan, Work
from multimodal_gen.messages.rank_args import RankArgs, RankPlace
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.managers import gpu_worker, rank_device, rank_group
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.rank_device import choose_device, choose_dtype, free_bytes
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows

STEPS = 6


@pytest.fixture(scope="module")
def pipeline(bundled_model: Path) -> ComposedPipeline:
    return load(bundled_model)


class Driver:
    """Numbers plans and hands back acknowledgements."""

    def __init__(self, pipeline: ComposedPipeline) -> None:
        self.worker = GPUWorker(pipeline)
        self._number = 0

    def __call__(self, phase: Phase | None = None, ids: Any = (), k: int = 1, **plan: Any) -> Ack:
        work = Work(phase=phase, ids=tuple(ids), k=k) if phase else None
        outcome = self.worker.execute(Plan(number=self._number, work=work, **plan))
        self._number += 1
        return outcome.ack()[0]

    def begin(self, *prompts: str, previews: bool = False) -> list[str]:
        reqs = [self.request(prompt, seed, previews) for seed, prompt in enumerate(prompts)]
        ids = [req.id for req in reqs]
        assert not self(Phase.ENCODE, ids, admit=tuple(reqs)).failures
        return ids

    def request(self, prompt: str, seed: int, previews: bool) -> Req:
        params = SamplingParams(prompt=prompt, seed=seed, num_inference_steps=STEPS)
        (req,) = requests_of(params, self.worker.pipeline.model_info("test"), previews=previews)
        return req


@pytest.fixture
def driver(pipeline: ComposedPipeline) -> Driver:
    return Driver(pipeline)


def test_ranks_have_time_to_meet_however_short_a_step_may_be(
    bundled_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Met(Exception):
        pass

    def meet(*args: object) -> None:
        (timeout,) = (each for each in args if isinstance(each, timedelta))
        raise Met(timeout.total_seconds())

    monkeypatch.setattr(rank_group, "init_process_group", meet)
    for step_timeout, seconds in ((2.0, rank_group.JOIN_S), (1000.0, 1000.0)):
        args = RankArgs(
            rank=0,
            engine=EngineArgs(device="cpu", num_gpus=2, step_timeout=step_timeout),
            model_folder=str(bundled_model),
            model_name="test",
            socket_folder="",
            ranks_address="",
        )
        with pytest.raises(Met) as met:
            GPUWorker.load(args, open_store=dist.HashStore)
        assert met.value.args == (seconds,)


@pytest.mark.parametrize(
    ("cuda", "hip", "said"),
    [
        (None, None, "this build of torch is for CPUs only"),
        ("13.0", None, "there is no CUDA device here"),
        (None, "7.0", "there is no ROCm device here"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_with_the_reason(
    cuda: str | None, hip: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    with pytest.raises(InvalidRequest, match=f"device='cuda': {said}.*use cpu"):
        choose_device(EngineArgs(device="cuda"), RankPlace())


def test_a_rocm_build_of_torch_is_used_as_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    place = RankPlace(local_rank=1, local_ranks=2)
    assert choose_device(EngineArgs(num_gpus=2), place) == torch.device("cuda", 1)


def test_more_ranks_than_gpus_are_refused_with_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InvalidRequest, match="num_gpus=3: there are 2 GPUs"):
        choose_device(EngineArgs(num_gpus=3), RankPlace(local_rank=2, local_ranks=3))


def test_only_the_ranks_of_a_host_share_its_gpus_and_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    of_16_ranks_on_8_hosts = RankPlace(local_rank=1, local_ranks=2)
    assert choose_device(EngineArgs(num_gpus=16), of_16_ranks_on_8_hosts).index == 1
    memory = SimpleNamespace(available=2**30)
    monkeypatch.setattr(rank_device.psutil, "virtual_memory", lambda: memory)
    assert free_bytes(torch.device("cpu"), of_16_ranks_on_8_hosts.local_ranks) == 2**29


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_weights_are_bfloat16_where_the_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_dtype(EngineArgs(), torch.device("cuda", 0)) is dtype
    assert choose_dtype(EngineArgs(dtype="float32"), torch.device("cuda", 0)) is torch.float32


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("phase", [Phase.ENCODE, Phase.DENOISE, Phase.DECODE])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_dropped_requests_memory_is_free_with_the_plan_that_drops_it(
    driver: Driver, phase: Phase, neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the conditioning of the prompts used last, whose cache is bounded."""
    monkeypatch.setattr(driver.worker.pipeline.prompts, "cache", ConditioningCache(max_bytes=0))
    ids = driver.begin(*["a red heart"] * (1 + neighbours), previews=True)
    if phase is not Phase.ENCODE:
        assert driver(Phase.DENOISE, ids, STEPS).error is None
    if phase is Phase.DECODE:
        assert driver(Phase.DECODE, ids[:1]).finished == (ids[0],)
    state = driver.worker.states[ids[0]]
    tensors = [state.latents, *state.chunks]
    tensors += [tensor for branch in state.conditioning.values() for tensor in branch.values()]
    held = [weakref.ref(one) for one in (state, state.solver, *tensors)]
    del state, tensors
    driver(drop=(ids[0],))
    assert [one() for one in held] == [None] * len(held)
    assert set(driver.worker.states) == set(ids[1:])


def test_after_an_error_ranks_skip_until_told_to_resume(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = driver.begin("a red heart", "a pizza")
    failing(monkeypatch, driver, "predict")
    failed = driver(Phase.DENOISE, ids, 3)
    assert (failed.advanced, failed.error is not None) == (0, True)
    monkeypatch.undo()
    late = driver.request("a dog", 7, previews=False)
    assert driver(Phase.ENCODE, [late.id], admit=(late,)).skipped
    assert driver(drop=(ids[1],)).error is None
    resumed = driver(Phase.DENOISE, ids[:1], 2, resume=True)
    assert (resumed.skipped, resumed.advanced, resumed.error) == (False, 2, None)
    assert late.id in driver(Phase.ENCODE, [late.id]).prepared


def test_a_preview_that_fails_costs_nobody_a_step(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = driver.begin("a red heart", "a pizza", previews=True)
    failing(monkeypatch, driver, "preview")
    ack = driver(Phase.DENOISE, ids, STEPS)
    assert (ack.advanced, ack.error, ack.previewed) == (STEPS, None, ())
    assert [state.evaluation for state in driver.worker.states.values()] == [STEPS, STEPS]
    assert "without previews" in caplog.text


def failing(monkeypatch: pytest.MonkeyPatch, driver: Driver, method: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(driver.worker.pipeline, method, fail)


def test_of_pictures_decoded_together_only_the_one_that_fails_ends(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = driver.worker.pipeline
    decode, sizes = pipeline.decode, []

    def faulty(states: list[RequestState], latents: Tensor, chunk: int) -> Tensor:
        sizes.append(len(states))
        if any(state.params.prompt == "poison" for state in states):
            raise RuntimeError("planted")
        return decode(states, latents, chunk)

    monkeypatch.setattr(pipeline, "decode", faulty)
    first, poison, last = ids = driver.begin("a red heart", "poison", "a pizza")
    assert driver(Phase.DENOISE, ids, STEPS).error is None
    ack = driver(Phase.DECODE, ids)
    assert ack.failures.keys() == {poison}
    assert ack.finished == (first, last)
    assert sizes == [3, 1, 1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latents_that_are_not_finite_end_only_their_request_and_name_the_step(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    sound, poison = ids = driver.begin("a red heart", "poison")
    pipeline = driver.worker.pipeline
    predict = pipeline.predict

    def faulty(rows: Rows) -> Tensor:
        prediction = predict(rows)
        for row, state in enumerate(rows.states):
            if state.params.prompt == "poison" and state.evaluation == 3:
                prediction[row, 0] = value
        return prediction

    monkeypatch.setattr(pipeline, "predict", faulty)
    assert driver(Phase.DENOISE, ids, 3).failures == {}
    ack = driver(Phase.DENOISE, ids, 2)
    assert ack.failures.keys() == {poison}
    assert ack.failures[poison].code == "generation_failed"
    assert f"from step 4 of {STEPS}" in ack.failures[poison].message
    assert driver(Phase.DENOISE, [sound], 1, drop=(poison,)).failures == {}
    done = driver(Phase.DECODE, [sound])
    assert (done.failures, done.finished) == ({}, (sound,))


def test_pixels_that_are_not_finite_end_only_their_request(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, poison = ids = driver.begin("a red heart", "poison")
    vae = driver.worker.pipeline.vae
    decode = vae.decode

    def faulty(*args: Any, **options: Any) -> Any:
        decoded, carry = decode(*args, **options)
        decoded[1, 0, 0, 0] = math.nan
        return decoded, carry

    monkeypatch.setattr(vae, "decode", faulty)
    assert driver(Phase.DENOISE, ids, STEPS).failures == {}
    ack = driver(Phase.DECODE, ids)
    assert ack.failures.keys() == {poison}
    assert "not finite (NaN or infinite) from decoding" in ack.failures[poison].message
    assert sound in ack.finished


def with_sound(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    """Prompts make sound of as many samples as they have letters; `silent` makes none."""

    def decode_sound(state: RequestState) -> None:
        prompt = state.params.prompt
        if prompt == "fails":
            raise RuntimeError("planted")
        if prompt != "silent":
            state.audio, state.audio_rate = torch.arange(2.0 * len(prompt)).view(2, -1), 8000
        if prompt == "poison" and state.audio is not None:
            state.audio[1, 3] = math.nan

    monkeypatch.setattr(driver.worker.pipeline, "decode_sound", decode_sound)


def test_the_sound_of_a_request_follows_its_pixels(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_sound(monkeypatch, driver)
    first, silent, last = ids = driver.begin("a bell", "silent", "a drum roll")
    assert driver(Phase.DENOISE, ids, STEPS).error is None
    ack = driver(Phase.DECODE, ids)
    assert (ack.finished, ack.audio_rates) == ((first, silent, last), {first: 8000, last: 8000})
    pixels = FrameHeader((1, 96, 96, 3))
    sounds = [FrameHeader((2, letters), "float32") for letters in (6, 11)]
    assert ack.frames == (pixels, sounds[0], pixels, pixels, sounds[1])


@pytest.mark.parametrize(
    ("prompt", "said"), [("poison", "decoding the sound"), ("fails", "planted")]
)
def test_sound_that_fails_ends_only_its_request(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, prompt: str, said: str
) -> None:
    with_sound(monkeypatch, driver)
    first, failing, last = ids = driver.begin("a bell", prompt, "silent")
    assert driver(Phase.DENOISE, ids, STEPS).error is None
    ack = driver(Phase.DECODE, ids)
    assert ack.failures.keys() == {failing}
    assert said in ack.failures[failing].message
    assert {first, last} <= {*ack.finished}
    assert (failing in ack.finished) == (prompt == "poison")


@pytest.mark.parametrize(
    "message",
    [
        "DefaultCPUAllocator: can't allocate memory",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
        "NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'",
    ],
)
def test_allocation_errors_of_the_libraries_are_out_of_memory(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    ids = driver.begin("a red heart")

    def fail(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(driver.worker.pipeline, "predict", fail)
    error = driver(Phase.DENOISE, ids).error
    assert error is not None
    assert error.code == "out_of_memory"


@pytest.mark.usefixtures("no_collector")
def test_the_retry_of_a_failed_decode_does_not_hold_the_failed_trys_memory(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = driver.worker.pipeline
    decode, held = pipeline.decode, list[weakref.ref[Tensor]]()

    def faulty(states: list[RequestState], latents: Tensor, chunk: int) -> Tensor:
        if len(states) > 1:
            large = torch.empty(8)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("planted")
        assert held[0]() is None
        return decode(states, latents, chunk)

    monkeypatch.setattr(pipeline, "decode", faulty)
    ids = driver.begin("a red heart", "a pizza")
    assert driver(Phase.DENOISE, ids, STEPS).error is None
    ack = driver(Phase.DECODE, ids)
    assert (ack.failures, ack.finished) == ({}, tuple(ids))


@pytest.mark.parametrize("attempts", [1, 2], ids=["passing", "lasting"])
def test_a_video_that_fails_among_others_is_where_the_plan_says_or_has_ended(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """A chunk fails once, and the retry does what was left; or again, and the request ends."""
    pipeline, failures = driver.worker.pipeline, [0]

    def faulty(states: list[RequestState], latents: Tensor, chunk: int) -> Tensor:
        if states[0].params.prompt == "poison" and chunk == 1 and failures[0] < attempts:
            failures[0] += 1
            raise RuntimeError("planted")
        return torch.full((1, 2, 2, 3), chunk, dtype=torch.uint8)

    monkeypatch.setattr(pipeline, "decode", faulty)
    monkeypatch.setattr(pipeline, "decode_chunks", lambda params: 4)
    _, poison = ids = driver.begin("a red heart", "poison")
    assert driver(Phase.DENOISE, ids, STEPS).error is None
    ack = driver(Phase.DECODE, ids, k=3)
    assert ack.failures.keys() == ({poison} if attempts == 2 else set())
    alive = [key for key in ids if key not in ack.failures]
    assert [len(driver.worker.states[key].chunks) for key in alive] == [3] * len(alive)
    assert driver(Phase.DECODE, alive).finished == tuple(alive)


def test_evaluations_in_a_row_at_one_expert_are_announced_as_one_run(
    checkpoints: Callable[..., Path],
) -> None:
    driver = Driver(load(checkpoints("wan22")))
    params = SamplingParams(prompt="x", width=32, height=32, num_frames=5, num_inference_steps=40)
    (req,) = requests_of(params, driver.worker.pipeline.model_info("test"))
    ack = driver(Phase.ENCODE, [req.id], admit=(req,))
    prepared = ack.prepared[req.id]
    (high, low) = prepared.batch_keys
    assert prepared.evaluations == high.count + low.count == 40
    assert high.key.tokens == low.key.tokens
    assert high.key != low.key
    assert len(msgspec.msgpack.encode(ack)) < 500
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ack), type=Ack) == ack


def test_free_memory_is_given_back_when_no_request_is_left(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(
        gpu_worker, "give_back_memory", lambda: given_back.append(len(driver.worker.states))
    )
    first, second = driver.begin("a heart", "a dog")
    driver(drop=(first,))
    driver(drop=(second,), admit=(driver.request("a cat", 2, False),))
    (third,) = driver.worker.states
    assert given_back == []
    driver(drop=(third,))
    assert given_back == [0]


def test_plans_of_a_model_that_stays_on_the_device_ask_for_no_components(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = driver.begin("a heart")
    asked: list[object] = []
    for stage in driver.worker.pipeline.executor.stages[Phase.DENOISE]:
        monkeypatch.setattr(stage, "components", lambda *given: asked.append(given) or ())
    assert driver(Phase.DENOISE, ids, k=2).advanced == 2
    assert not asked
