"""The examples of CONTRIBUTING and of "Add a model" work as they are, in a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from snippets import titled

import multimodal_gen

Checkpoints = Callable[..., Path]
Run = Callable[[str], Any]

REQUEST = 'dict(prompt="a fox", seed=1, width=64, height=64, num_inference_steps=4)'
FAMILY_FILES = ("configs/families/example.py", "runtime/pipelines/families/example.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, without the bundled model."""
    copy = tmp_path / "multimodal_gen"
    ignored = shutil.ignore_patterns("__pycache__", "bundled_model")
    shutil.copytree(Path(multimodal_gen.__file__).parent, copy, ignore=ignored)
    return copy


@pytest.fixture
def run(package: Path) -> Run:
    """`run(script)`: what a script that uses the copy prints last, as JSON."""

    def in_process(script: str) -> Any:
        paths = os.pathsep.join([str(package.parent), str(ROOT / "tests" / "helpers")])
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=package.parent,
            env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return in_process


def test_a_row_makes_a_solver(package: Path, run: Run, checkpoints: Checkpoints) -> None:
    row = titled(ROOT / "CONTRIBUTING.md", "configs/solvers.py")
    file = package / "configs" / "solvers.py"
    file.write_text(file.read_text().replace("_ROWS = (\n", f"_ROWS = (\n{row.rstrip()},\n", 1))
    made = run(f"""
import json
from pathlib import Path
from engineless import load, run
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import a1111_name
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import samplers_of

pipeline = load(Path({str(checkpoints("sd15"))!r}))
info = pipeline.model_info("test")
added, own = (
    run(pipeline, SamplingParams(scheduler=name, **{REQUEST})).latents
    for name in ("sa_solver", None)
)
print(json.dumps({{
    "allowed": "sa_solver" in info.schedulers,
    "names": [a1111_name("sa_solver"), samplers_of(info.schedulers)["sa_solver"]],
    "finite": bool(added.isfinite().all()),
    "differs": bool((added - own).abs().max() > 1e-3),
}}))
""")
    assert made == {
        "allowed": True,
        "names": ["SA-Solver", "sa_solver"],
        "finite": True,
        "differs": True,
    }


def test_a_module_makes_an_attention_backend(package: Path) -> None:
    name = "runtime/layers/attention/backends/double.py"
    (package / name).write_text(titled(ROOT / "CONTRIBUTING.md", name))
    tests = ROOT / "tests" / "models" / "test_attention.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-k", "double", "-p", "no:cacheprovider", tests],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "test_attention_is_softmax_of_scaled_scores[double] PASSED" in done.stdout


def test_two_files_make_a_family(
    package: Path, run: Run, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    for name in FAMILY_FILES:
        (package / name).write_text(titled(ROOT / "docs" / "add-a-model.md", name))
    sigma, example = checkpoints("pixart-sigma"), tmp_path / "example"
    shutil.copytree(sigma, example)
    index = json.loads((example / "model_index.json").read_text())
    (example / "model_index.json").write_text(
        json.dumps({**index, "_class_name": "ExamplePipeline"})
    )
    made = run(f"""
import contextlib, io, json
from pathlib import Path
from engineless import load, run
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import main

with contextlib.redirect_stdout(io.StringIO()) as listed:
    main(["models"])
example, sigma = (
    run(load(Path(folder)), SamplingParams(**{REQUEST})).latents
    for folder in ({str(example)!r}, {str(sigma)!r})
)
print(json.dumps({{
    "listed": "example" in listed.getvalue(),
    "difference": float((example - sigma).abs().max()),
}}))
""")
    assert made["listed"]
    assert made["difference"] < 1e-4
