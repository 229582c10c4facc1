"""What calls from Python show beside their results: bars, warnings and a model's description. No
engine is real here."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from fake_engine import FakeEngine
from http_serving import MODEL

import multimodal_gen
from multimodal_gen import DiffusionGenerator, GenerationResult, Progress, SamplingParams
from multimodal_gen.client.request_handle import Output
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.entrypoints.python import progress_bar
from multimodal_gen.entrypoints.python.generator_info import GeneratorInfo
from multimodal_gen.entrypoints.python.progress_bar import StepBar, wants_bar
from multimodal_gen.messages.request_warning import RequestWarning


class _AtOnce(FakeEngine):
    """Ends each request as soon as it is submitted."""

    address = "ipc://nowhere"

    def submit(self, req: Any, pictures: Any = ()) -> Any:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def engine_at_once() -> _AtOnce:
    return _AtOnce()


@pytest.fixture
def generator(engine_at_once: _AtOnce) -> Iterator[DiffusionGenerator]:
    with DiffusionGenerator(cast(SchedulerClient, engine_at_once)) as generator:
        yield generator


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


class _Bar:
    """Stands for tqdm's."""

    def __init__(self, total: int, **_: Any) -> None:
        self.n, self.total, self.closed = 0, total, False

    def reset(self, total: int) -> None:
        self.n, self.total = 0, total

    def set_description(self, text: str, refresh: bool) -> None:
        self.text = text

    def update(self, steps: int) -> None:
        self.n += steps

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[_Bar]:
    made: list[_Bar] = []

    def bar_of(**options: Any) -> _Bar:
        made.append(_Bar(**options))
        return made[-1]

    monkeypatch.setattr(progress_bar, "bar_of", bar_of)
    return made


def a_result() -> GenerationResult:
    output = Output("a", np.zeros((1, 8, 8, 3), np.uint8), 7, None, {}, [])
    return GenerationResult((output,), SamplingParams(prompt="a"), "model")


def test_no_bar_is_wanted_where_the_output_is_piped() -> None:
    assert not wants_bar(None)
    assert wants_bar(True)


@pytest.mark.usefixtures("on_terminal")
def test_a_bar_is_wanted_on_a_terminal_in_the_main_thread() -> None:
    assert wants_bar(None)
    assert not wants_bar(False)
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(wants_bar, None).result()


def test_no_bar_is_wanted_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert not wants_bar(None)


def test_a_bar_is_wanted_in_a_notebook_but_not_in_other_shells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = SimpleNamespace(config={})
    ipython = cast(Any, SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not wants_bar(None)
    shell.config["IPKernelApp"] = {}
    assert wants_bar(None)


def test_a_bar_expects_of_prompts_that_wait_as_many_steps_as_of_others(bars: list[_Bar]) -> None:
    with StepBar(3) as bar:
        bar.draw()
        assert bars == []
        bar.report(0, Progress(3, 20, None, "denoise"))
        bar.draw()
        assert (bars[0].n, bars[0].total, bars[0].text) == (3, 60, "denoise")
        bar.report(1, Progress(5, 10, None, "denoise"))
        bar.report(0, a_result())
        bar.draw()
        assert (bars[0].n, bars[0].total) == (25, 45)
    assert bars[0].closed


def test_a_bar_is_drawn_by_the_thread_that_calls(
    generator: DiffusionGenerator, bars: list[_Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(StepBar, "draw", lambda _: threads.append(threading.current_thread()))
    results = generator.generate(["a", "b"], progress=True)
    assert [result.params.prompt for result in results] == ["a", "b"]
    assert {*threads} <= {threading.current_thread()}


def test_a_warning_is_logged_once_and_is_in_every_result(
    generator: DiffusionGenerator, engine_at_once: _AtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    engine_at_once.warnings = (RequestWarning.no_effect("guidance_scale"),)
    with caplog.at_level(logging.WARNING, "multimodal_gen"):
        results = [generator.generate("a"), *generator.generate(["b", "c"])]
        *_, streamed = generator.stream("d")
    assert caplog.messages == ["guidance_scale has no effect"]
    for result in (*results, cast(GenerationResult, streamed)):
        assert [warning.code for warning in result.warnings] == ["no_effect"]


def test_a_model_is_described_in_a_few_short_lines(tmp_path: Any) -> None:
    (tmp_path / "style.safetensors").touch()
    model = msgspec.structs.replace(MODEL, parameters=tuple(f"parameter_{i}" for i in range(40)))
    info = GeneratorInfo.of(model, EngineArgs(lora_dir=tmp_path))
    lines = str(info).splitlines()
    assert lines[0] == "owner/name (flux)"
    assert all(len(line) <= 100 for line in lines)
    rows = {line[2:].split("  ")[0]: line for line in lines[1:] if line[2] != " "}
    assert rows.keys() >= {"device", "tasks", "sizes", "defaults", "limits", "LoRAs"}
    assert rows["LoRAs"].endswith(" style")
    assert repr(info) == str(info)


def test_a_generator_says_what_it_serves(engine_at_once: _AtOnce) -> None:
    generator = DiffusionGenerator(cast(SchedulerClient, engine_at_once))
    assert repr(generator) == "DiffusionGenerator('owner/name', device='cpu')"
    assert str(generator.info).startswith("owner/name (flux)")
    assert repr(generator.model).startswith("ModelInfo('owner/name', family='flux', tasks=")
    generator.close()
    assert repr(generator) == "DiffusionGenerator(closed)"


def test_dir_shows_the_public_names_only() -> None:
    program = "import multimodal_gen as m; print(*dir(m)); [getattr(m, name) for name in dir(m)]"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted([*multimodal_gen.__all__, "errors"])
