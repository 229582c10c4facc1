"""What is installed: the wheel's content, its command, and the pins."""

import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from places import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_bundled_model(wheel: Path, bundled_model: Path) -> None:
    packed = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    for path in bundled_model.rglob("*"):
        if path.is_file():
            assert packed[path.relative_to(ROOT).as_posix()] == path.stat().st_size


def test_the_wheel_holds_the_page(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for part in (ROOT / "multimodal_gen/assets").rglob("*.*"):
        assert part.relative_to(ROOT).as_posix() in packed


def test_the_wheel_holds_types_and_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "multimodal_gen/py.typed" in names
    for licence in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names)


def test_the_wheel_holds_no_tests(wheel: Path) -> None:
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"multimodal_gen"}


def test_the_command_is_a_function_that_exists() -> None:
    module, _, function = PYPROJECT["project"]["scripts"]["multimodal-gen"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_requirement_is_pinned() -> None:
    project = PYPROJECT["project"]
    requirements = project["dependencies"] + _of_extra("dev")
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert {_name(r) for r in requirements} <= {_name(pin) for pin in pins}


def test_no_pin_drags_in_cuda() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"cuda|nvidia|triton|\+cpu|--|://|@", pins)


def _of_extra(name: str) -> list[str]:
    """The requirements of an extra, with those of the extras that it names."""
    found = []
    for requirement in PYPROJECT["project"]["optional-dependencies"][name]:
        own, _, extras = requirement.rstrip("]").partition("[")
        if own == PYPROJECT["project"]["name"]:
            found += [each for extra in extras.split(",") for each in _of_extra(extra)]
        else:
            found.append(requirement)
    return found


def test_the_docs_name_the_versions_of_pytorch_that_pip_takes() -> None:
    [requirement] = [r for r in PYPROJECT["project"]["dependencies"] if _name(r) == "torch"]
    bounds = re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", requirement)
    assert bounds
    oldest, newest = int(bounds[1]), int(bounds[2]) - 1
    stated = f"PyTorch 2.{oldest} to 2.{newest}"
    assert stated in (ROOT / "README.md").read_text()
    assert stated in (ROOT / "docs/how-to/gpu.md").read_text()
    pin = re.search(r"^torch==2\.(\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pin
    assert oldest <= int(pin[1]) <= newest


def _name(requirement: str) -> str:
    name = re.split(r"[<>=!~;\[ ]", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
