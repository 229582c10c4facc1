"""The prompts of one command: how often their pictures are opened and their parameters resolved."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fake_engine import FakeEngine
from http_serving import MODEL
from PIL import Image

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.cli.running import picture_cache, prompt_list
from multimodal_gen.entrypoints.python import calls, diffusion_generator
from multimodal_gen.errors import QueueFull
from multimodal_gen.messages import validation
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning


class QuickEngine(FakeEngine):
    """Ends every request at once; is full for the first `refused` of them."""

    def __init__(self, refused: int = 0) -> None:
        super().__init__()
        self.model = msgspec.structs.replace(MODEL, tasks=("text-to-image", "image-to-image"))
        self.submitted: list[Req] = []
        self._refused = refused

    @property
    def client(self) -> QuickEngine:
        return self

    def __enter__(self) -> QuickEngine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait_ready(self) -> ModelInfo:
        return self.model

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.submitted.append(req)
        if len(self.submitted) <= self._refused:
            self.fail(req.params.prompt, QueueFull("full", 0.01))
        else:
            self.finish(req.params.prompt)
        return handle


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each input picture is read."""
    counted: Counter[str] = Counter()
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        counted[path.name] += 1
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return counted


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the parameters of each prompt are resolved."""
    counted: Counter[str] = Counter()
    resolve = validation.resolve

    def counting(params: Any, *rest: Any) -> Any:
        counted[params.prompt] += 1
        return resolve(params, *rest)

    for module in (validation, calls, prompt_list):
        monkeypatch.setattr(module, "resolve", counting)
    return counted


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures, and prompts of which two share one."""
    monkeypatch.chdir(tmp_path)
    for name, color in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (32, 32), color).save(name)
    named = {"a": "red.png", "b": "red.png", "c": "blue.png"}
    lines = [{"prompt": prompt, "image_path": name} for prompt, name in named.items()]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))


def generate(engine: QuickEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion_generator, "start_engine", lambda *_: engine)
    assert main(["generate", "--prompt-path=p.jsonl", "--num-outputs-per-prompt=2"]) == 0


def test_each_picture_is_opened_once(opened: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = QuickEngine()
    generate(engine, monkeypatch)
    assert {name: opened[name] for name in ("red.png", "blue.png")} == {"red.png": 1, "blue.png": 1}
    shown = {req.params.prompt: engine.pictures[req.id][0] for req in engine.submitted}
    assert [tuple(shown[prompt][0, 0]) for prompt in "abc"] == [
        (255, 0, 0),
        (255, 0, 0),
        (0, 0, 255),
    ]


def test_parameters_are_resolved_once(
    resolved: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(QuickEngine(), monkeypatch)
    assert resolved == {"a": 1, "b": 1, "c": 1}


def test_a_full_queue_is_tried_again_with_the_same_parameters_and_fresh_ids(
    opened: Counter[str], resolved: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QuickEngine(refused=1)
    generate(engine, monkeypatch)
    tries = [req for req in engine.submitted if req.params.prompt == "a"]
    assert len(tries) == 4
    assert len({req.id for req in tries}) == 4
    assert len({req.params.seed for req in tries}) == 2
    assert resolved["a"] == opened["red.png"] == 1


def test_pictures_that_do_not_fit_in_memory_are_opened_again(
    opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_cache, "KEPT_BYTES", np.zeros((32, 32, 3), np.uint8).nbytes)
    generate(QuickEngine(), monkeypatch)
    assert (opened["red.png"], opened["blue.png"]) == (1, 2)


def test_a_warning_that_all_results_have_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QuickEngine()
    engine.warnings = (RequestWarning("adapter", "lora", "lora='ink': head has no effect"),)
    generate(engine, monkeypatch)
    shown = capsys.readouterr()
    assert shown.err.count("multimodal-gen: warning: lora='ink': head has no effect") == 1
    assert "warning" not in shown.out
