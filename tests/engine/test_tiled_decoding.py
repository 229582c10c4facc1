"""Requests that are decoded in tiles: units of work that others can come between."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from engineless import load, start
from engines import assert_all_gone, start_engine, submit_to
from places import FAULTS_FOLDER, python_path
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, EngineDied
from multimodal_gen.messages.plan import Ack, Phase, Plan, Work
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.residency.decoding_room import decoding_room

PICTURE = SamplingParams(prompt="a red heart", width=112, height=80, num_inference_steps=1, seed=3)
"""Three tiles across and two down, of the tiny checkpoint's 64 pixels."""
TILES = 6


@pytest.fixture(scope="module")
def flux(checkpoints: Callable[..., Path]) -> ComposedPipeline:
    pipeline = load(checkpoints("flux-dev"))
    pipeline.limit_decoding(0)
    return pipeline


class Plans:
    """Numbers plans, and gives the worker's answers with their pixels."""

    def __init__(self, pipeline: ComposedPipeline) -> None:
        self.worker = GPUWorker(pipeline)
        self._numbers = count()

    def __call__(
        self, phase: Phase | None, ids: list[str], k: int = 1, **plan: Any
    ) -> tuple[Ack, list[Any]]:
        work = None if phase is None else Work(phase=phase, ids=tuple(ids), k=k)
        return self.worker.execute(Plan(number=next(self._numbers), work=work, **plan)).ack()

    def denoised(self, *requests: SamplingParams) -> list[str]:
        model = self.worker.pipeline.model_info("test")
        reqs = tuple(req for params in requests for req in requests_of(params, model))
        ids = [req.id for req in reqs]
        ack, _ = self(Phase.ENCODE, ids, admit=reqs)
        assert {each.decode_chunks for each in ack.prepared.values()} == {TILES}
        for each in ids:
            self(Phase.DENOISE, [each])
        return ids


def test_others_are_decoded_between_two_tiles(flux: ComposedPipeline) -> None:
    requests = [PICTURE, replace(PICTURE, seed=4)]
    alone = Plans(flux)
    expected = []
    for each in alone.denoised(*requests):
        _, (pixels,) = alone(Phase.DECODE, [each], TILES)
        expected.append(pixels)
    plans = Plans(flux)
    first, second = ids = plans.denoised(*requests)
    plans(Phase.DECODE, [first], 2)
    plans(Phase.DECODE, [second], 1)
    plans(Phase.DECODE, ids, TILES - 3)
    ack, (pixels,) = plans(Phase.DECODE, ids, 1)
    assert ack.finished == (first,)
    assert np.array_equal(pixels, expected[0])
    ack, (pixels,) = plans(Phase.DECODE, [second], 1)
    assert ack.finished == (second,)
    assert np.array_equal(pixels, expected[1])
    assert not np.array_equal(*expected)


def test_a_request_that_ends_between_two_tiles_leaves_nothing_behind(
    flux: ComposedPipeline,
) -> None:
    plans = Plans(flux)
    (request,) = plans.denoised(PICTURE)
    plans(Phase.DECODE, [request], 2)
    run = plans.worker.states[request].shared
    assert isinstance(run, TileRun)
    canvas = run._canvas
    assert canvas is not None
    held = weakref.ref(canvas)
    del run, canvas
    gc.collect()
    gc.disable()  # memory must not wait for the collector
    try:
        plans(None, [], drop=(request,))
        assert held() is None
    finally:
        gc.enable()


def test_an_error_in_a_tile_ends_that_request_only(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(flux)
    sound, poison = plans.denoised(PICTURE, PICTURE)
    plain, planted = flux.vae.decode_tile, weakref.WeakSet[Tensor]()

    def faulty(*args: Any, **options: Any) -> Any:
        kept = torch.empty(8)
        planted.add(kept)
        raise MemoryError

    plans(Phase.DECODE, [sound, poison], 1)
    with monkeypatch.context() as broken:
        broken.setattr(flux.vae, "decode_tile", faulty)
        ack, _ = plans(Phase.DECODE, [poison], 1)
    assert ack.failures[poison].code == "out_of_memory"
    assert ack.error is None
    assert not planted
    assert flux.vae.decode_tile == plain
    ack, (pixels,) = plans(Phase.DECODE, [sound], TILES - 1)
    assert (ack.failures, ack.finished) == ({}, (sound,))
    assert pixels.shape == (1, 80, 112, 3)


def test_pixels_that_are_not_finite_in_one_tile_end_the_request(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(flux)
    (request,) = plans.denoised(PICTURE)
    finished = flux.vae.finished
    monkeypatch.setattr(flux.vae, "finished", lambda decoded: finished(decoded) * torch.nan)
    ack, _ = plans(Phase.DECODE, [request], 1)
    assert "not finite (NaN or infinite) from decoding" in ack.failures[request].message


def test_previews_are_not_tiled(flux: ComposedPipeline) -> None:
    params = replace(PICTURE, width=1024, height=512, num_inference_steps=2)
    state = start(flux, params, previews=True)
    flux.forward(Phase.DENOISE, [state], 1)
    assert state.preview is not None
    assert state.preview.shape == (128, 256, 3)
    assert state.shared is None


def test_together_are_decoded_as_many_as_fit(flux: ComposedPipeline) -> None:
    one = flux.vae.decode_bytes(80, 112)
    try:
        for room, most in ((one, 1), (3 * one, 3), (3 * one - 1, 2)):
            flux.limit_decoding(room)
            assert flux.decoded_at_once(PICTURE) == most
            assert not flux.decoded_by_all(PICTURE)
    finally:
        flux.limit_decoding(0)


def test_on_a_cpu_as_many_ranks_decode_at_once_as_fit(
    checkpoints: Callable[..., Path],
) -> None:
    pipeline = load(checkpoints("flux-dev"))
    pipeline.context = replace(pipeline.context, mesh=Mesh(world_size=4))
    tile = pipeline.vae.tile_bytes()
    for room, turns in ((0, 6), (tile, 3), (2 * tile - 1, 2)):
        pipeline.limit_decoding(room)
        assert pipeline.decode_chunks(PICTURE) == turns


def test_all_ranks_decode_what_is_large_and_in_one_piece(
    checkpoints: Callable[..., Path],
) -> None:
    pipeline = load(checkpoints("flux-dev"))
    large = replace(PICTURE, width=1024, height=512)
    assert not pipeline.decoded_by_all(large)
    pipeline = load(checkpoints("flux-dev"))
    pipeline.context = replace(pipeline.context, mesh=Mesh(world_size=4))
    assert pipeline.decoded_by_all(large)
    assert (pipeline.decode_chunks(large), pipeline.decoded_at_once(large)) == (1, 1)
    assert not pipeline.decoded_by_all(PICTURE)


def test_a_rank_without_rows_decodes_no_band(checkpoints: Callable[..., Path]) -> None:
    pipeline = load(checkpoints("flux-dev"))
    flat = replace(PICTURE, width=8192, height=32)
    rows = flat.height // pipeline.vae.module_scale
    for ranks, shared in ((rows, True), (rows + 1, False)):
        other = load(checkpoints("flux-dev"))
        other.context = replace(other.context, mesh=Mesh(world_size=ranks))
        assert other.decoded_by_all(flat) == shared


def test_bands_have_the_pixels_of_the_whole(unlimited_model: Path) -> None:
    pixels = []
    for ranks in (1, 2):
        with start_engine(model_path=str(unlimited_model), num_gpus=ranks) as engine:
            size = {"width": 512, "height": 512, "num_inference_steps": 1}
            pixels.append(submit_to(engine, "a pizza", **size).result(200).pixels.astype(int))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_tiles_and_pixels_are_the_same_on_any_number_of_ranks(unlimited_model: Path) -> None:
    """With so little memory that a picture is decoded in tiles, of which several fit at once."""
    small = {"model_path": str(unlimited_model), "device_memory_gb": 0.06}
    pixels = []
    for ranks in (1, 2, 4):
        with start_engine(**small, num_gpus=ranks) as engine:
            size = {"width": 192, "height": 256, "num_inference_steps": 2}
            # The second pass starts from the tiles of the first.
            request = submit_to(engine, "a pizza", **size, upscale="1.25:0.5:2")
            pixels.append(request.result(200).pixels.astype(int))
            assert pixels[-1].shape == (1, 320, 240, 3)
            if ranks > 1:
                running = submit_to(engine, "a pizza", num_inference_steps=1000)
                running.cancel()
                with pytest.raises(Cancelled):
                    running.result(200)
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert np.abs(pixels[0] - pixels[2]).max() <= 1


def test_room_follows_from_the_memory_that_is_given_and_not_from_what_is_free() -> None:
    cpu = torch.device("cpu")
    assert decoding_room(cpu, 8.0) == 2 * 10**9
    assert decoding_room(cpu, None) == decoding_room(cpu, None) <= psutil.virtual_memory().total / 4


def test_a_rank_that_can_not_begin_with_its_tiles_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
    unlimited_model: Path,
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(FAULTS_FOLDER))
    monkeypatch.setenv("RANK_FAULTS", "harshly=shared_decoding:1:raise")
    small = {"model_path": str(unlimited_model), "device_memory_gb": 0.06}
    with start_engine(**small, num_gpus=2) as engine:
        request = submit_to(engine, "fail harshly", width=192, height=256, num_inference_steps=1)
        with pytest.raises(EngineDied, match="planted"):
            request.result(200)
        assert_all_gone(engine)
