"""Every example runs as it is."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from http_serving import app_over, serving
from places import ROOT

from multimodal_gen import DiffusionGenerator
from multimodal_gen.launch.engine_process import EngineProcess

WRITES = {
    "batch.py": ["batch/00000.png", "batch/00001.png", "batch/00002.png"],
    "stream.py": ["preview.png", "rocket.png"],
    "asyncio_many.py": ["dog.png", "cat.png", "fox.png"],
    "connect.py": ["dog.png"],
}


def test_the_quickstart_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "quickstart.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("heart.png (96, 96) [7] {")
    assert (tmp_path / "heart.png").is_file()


def test_openais_client_is_served(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.wait_ready(120)
    monkeypatch.chdir(tmp_path)
    with serving(app_over(engine.client)) as url:
        monkeypatch.setattr(sys, "argv", ["openai_client.py", url])
        runpy.run_path(str(ROOT / "examples" / "openai_client.py"), run_name="__main__")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heart-0.png", "heart-1.png"]


def test_openais_client_without_a_server_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "http://127.0.0.1:1"
    monkeypatch.setattr(sys, "argv", ["openai_client.py", url])
    with pytest.raises(SystemExit, match=f"no server answers at {url}: start one with"):
        runpy.run_path(str(ROOT / "examples" / "openai_client.py"), run_name="__main__")


def test_connect_without_an_address_starts_an_engine_and_a_process_that_uses_it(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared() -> DiffusionGenerator:
        return DiffusionGenerator.connect(engine.address)

    engine.wait_ready(120)
    monkeypatch.setattr(DiffusionGenerator, "from_pretrained", shared)
    monkeypatch.setattr(sys, "argv", ["connect.py"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "connect.py"), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == ["dog.png"]


@pytest.mark.parametrize("name", WRITES)
def test_an_example_runs_and_writes_what_it_says(
    name: str, engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.wait_ready(120)

    def shared(*_: object, **__: object) -> DiffusionGenerator:
        return DiffusionGenerator.connect(engine.address)

    stream = DiffusionGenerator.stream

    def longer(generator: DiffusionGenerator, prompt: str, **given: Any) -> Any:
        """So long that some preview is seen, however late this process hears of them."""
        return stream(generator, prompt, **{**given, "num_inference_steps": 500})

    monkeypatch.setattr(DiffusionGenerator, "from_pretrained", shared)
    monkeypatch.setattr(DiffusionGenerator, "stream", longer)
    monkeypatch.setattr(sys, "argv", [name, engine.address])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == sorted(WRITES[name])
