"""Progress of loading, from the weights to the client."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from no_model import MODEL

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.launch.loading_display import LoadingDisplay
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.runtime.distributed.mesh import Axis, Mesh
from multimodal_gen.runtime.loader.loading_meter import REPORT_S, LoadingMeter
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway

Checkpoints = Callable[..., Path]
CPU = torch.device("cpu")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder")
OTHER_RANK = Mesh(rank=1, world_size=2, cfg=Axis(1, 2))


def test_a_component_is_reported_at_its_start_now_and_then_and_at_its_end() -> None:
    now, told = 0.0, []
    meter = LoadingMeter(
        {"tokenizer": 0, "text_encoder": 100, "vae": 20},
        lambda *news: told.append(news),
        lambda: now,
    )
    with meter.component("tokenizer"):
        pass
    with meter.component("text_encoder"):
        meter.within(0.1)  # too soon
        now += REPORT_S
        meter.within(0.5)
    with meter.component("vae"):
        pass
    assert told == [
        ("text_encoder", 0, 120),
        ("text_encoder", 50, 120),
        ("text_encoder", 100, 120),
        ("vae", 100, 120),
        ("vae", 120, 120),
    ]


def weights(folder: Path, *components: str) -> int:
    files = (file for name in components for file in (folder / name).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)


def load(folder: Path, mesh: Mesh) -> tuple[Any, list[tuple[str, int, int]]]:
    told: list[tuple[str, int, int]] = []
    pipeline = load_pipeline(
        folder,
        device=CPU,
        dtype=torch.float32,
        mesh=mesh,
        report=lambda *news: told.append(news),
    )
    return pipeline, told


def test_a_rank_reports_the_bytes_of_what_it_loads(checkpoints: Checkpoints) -> None:
    folder = checkpoints("flux-schnell")
    parts = ("text_encoder", "text_encoder_2", "transformer", "vae")
    for mesh, loaded in ((Mesh(), parts), (OTHER_RANK, parts[2:])):
        _, told = load(folder, mesh)
        total = weights(folder, *loaded)
        assert {name for name, _, _ in told} == set(loaded)
        assert {each for _, _, each in told} == {total}
        amounts = [amount for _, amount, _ in told]
        assert amounts == sorted(amounts)
        assert amounts[-1] == total


@pytest.mark.parametrize(
    "name",
    [
        "flux2-klein",
        "hunyuan-video",
        "pixart-sigma",
        "qwenimage",
        "sana",
        "sd3",
        "sdxl",
        "wan-i2v",
        "zimage",
    ],
)
def test_a_rank_that_does_not_encode_has_no_weights_of_encoders(
    name: str, checkpoints: Checkpoints
) -> None:
    pipeline, told = load(checkpoints(name), OTHER_RANK)
    for component, loaded in pipeline.components.items():
        if component in ENCODERS:
            assert all(parameter.is_meta for parameter in loaded.parameters())
        elif component.startswith(("tokenizer", "processor", "image_processor")):
            assert loaded is None
        elif component != "scheduler":
            assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert not {name for name, _, _ in told} & set(ENCODERS)


def test_a_client_hears_the_newest_progress_until_the_model_is_ready(tmp_path: Path) -> None:
    first, second = (
        LoadingProgress(component="vae", loaded_bytes=loaded, total_bytes=9) for loaded in (3, 6)
    )
    gateway = ClientGateway(f"ipc://{tmp_path}/client")
    gateway.announce(first)
    heard: queue.SimpleQueue[LoadingProgress] = queue.SimpleQueue()

    def show(progress: LoadingProgress) -> None:
        heard.put(progress)
        if progress == first:
            gateway.announce(second)
        else:
            gateway.open(None, 1, MODEL)  # type: ignore[arg-type]

    with SchedulerClient(f"ipc://{tmp_path}/client") as client:
        assert client.wait_ready(60, show) == MODEL
    gateway.close()
    assert [heard.get(), heard.get()] == [first, second]
    assert heard.empty()


def test_a_large_model_is_a_line_for_each_component_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with LoadingDisplay() as display:
        for component, loaded in (("text_encoder", 0), ("text_encoder", 5), ("vae", 10)):
            sizes = {"loaded_bytes": loaded * 10**9, "total_bytes": 12 * 10**9}
            display.show(LoadingProgress(component=component, **sizes))
    assert capsys.readouterr().err.splitlines() == [
        "multimodal-gen: loading text_encoder: 0.0 of 12.0 GB",
        "multimodal-gen: loading vae: 10.0 of 12.0 GB",
    ]


def test_a_small_model_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with LoadingDisplay() as display:
        display.show(LoadingProgress(component="vae", loaded_bytes=0, total_bytes=10**7))
    assert capsys.readouterr().err == ""
