"""`.ci/run`: it sees to a browser, and its tests skip nothing that needs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = '    python3 -m venv .venv && echo "-m pytest, browser: $CI_NEEDS_BROWSER"\n'
STUB = "#!/bin/sh\n"
INSTALLS = f'{STUB}echo "apt-get $@"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One that has `.ci/run`, a README with a test command, and tools that do nothing."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "README.md").write_text(TEST)
    for name in ("bash", "dirname", "grep"):
        put(tmp_path / "bin" / name, f'{STUB}exec {shutil.which(name)} "$@"\n')
    for name in ("ruff", "mypy", "lint-imports", "mkdocs"):
        put(tmp_path / ".venv/bin" / name, STUB)
    put(tmp_path / "bin/python3", STUB)
    put(tmp_path / "bin/apt-get", INSTALLS)
    return tmp_path


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def ran(project: Path, user: int) -> list[str]:
    put(project / "bin/id", f"{STUB}echo {user}\n")
    done = subprocess.run(
        [str(project / "bin/bash"), str(project / ".ci/run")],
        env={"PATH": str(project / "bin")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_browser_is_installed_where_there_is_none(project: Path) -> None:
    installed, tested = ran(project, user=0)[-2:]
    assert installed.startswith("apt-get install ")
    assert installed.endswith(" chromium")
    assert tested == "-m pytest, browser: 1"


def test_a_browser_that_is_there_is_left_alone(project: Path) -> None:
    put(project / "bin/google-chrome", STUB)
    assert ran(project, user=0) == ["-m pytest, browser: 1"]


def test_who_may_not_install_gets_to_the_tests_all_the_same(project: Path) -> None:
    assert ran(project, user=1000) == ["-m pytest, browser: 1"]


@pytest.mark.parametrize(
    ("asked", "outcome"), [({}, "1 skipped"), ({"CI_NEEDS_BROWSER": "1"}, "1 error")]
)
def test_without_a_browser_its_tests_are_skipped_unless_they_must_run(
    tmp_path: Path, asked: dict[str, str], outcome: str
) -> None:
    test = tmp_path / "test_page.py"
    test.write_text(
        "from browsers import needs_chromium\n"
        "pytestmark = needs_chromium\n"
        "def test_page(browser): pass\n"
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["browsers"]\n')
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests/helpers'}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/"), **asked},
        capture_output=True,
        text=True,
    )
    assert outcome in done.stdout
    assert "apt-get install chromium" in done.stdout
