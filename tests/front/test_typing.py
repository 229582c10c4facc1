"""A type checker accepts the examples and rejects misspelt keywords. `mypy` in continuous
integration finds the same; here it is seen from outside of the package."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import HELPERS, ROOT

CALLS = HELPERS / "typed_calls.py"
IGNORE = "  # type: ignore["


def test_the_type_checker_reads_the_examples_and_the_calls() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert {"examples/*.py", str(CALLS.relative_to(ROOT))} < {*settings["files"]}


@pytest.mark.slow
def test_examples_are_accepted_and_misspelt_keywords_rejected(tmp_path: Path) -> None:
    lines = CALLS.read_text().splitlines()
    (tmp_path / "calls.py").write_text("\n".join(line.split(IGNORE)[0] for line in lines))
    options = ["--strict", "--no-error-summary", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "calls.py", *(ROOT / "examples").glob("*.py")],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    places = {tuple(error.split(":")[:2]) for error in errors}
    wrong = [number for number, line in enumerate(lines, 1) if IGNORE in line]
    assert places == {("calls.py", str(number)) for number in wrong}, done.stdout
