"""The reference pages show what the code declares, and pages link to files that exist."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT
from snippets import PAGES

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.configs.solvers import SOLVERS
from multimodal_gen.errors import HTTP_STATUS, MultimodalGenError

REFERENCE = ROOT / "docs" / "reference"
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`rendered(name)`: a reference page with its generated tables."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_hooks"))
    hook = importlib.import_module("generated")

    def page(name: str) -> str:
        return str(hook.on_page_markdown((REFERENCE / f"{name}.md").read_text()))

    return page


def test_every_family_and_solver_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("models")
    for name in (*(family.title for family in FAMILIES), *(f"`{name}`" for name in SOLVERS)):
        assert f"| {name} |" in page


def test_every_sampling_parameter_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("sampling-parameters")
    for field in fields(SamplingParams):
        assert f"| `{field.name}` |" in page


def test_every_server_argument_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("server-arguments")
    for field in fields(ServerArgs):
        assert f"`MULTIMODAL_GEN_{field.name.upper()}`" in page


def test_every_command_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("cli")
    for command in ("generate", "serve", "bench", "models"):
        assert f"## `multimodal-gen {command}`" in page
    assert "`--output-path`, `-o`" in page


def test_routes_of_every_protocol_are_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("http")
    for route in (
        "POST /v1/images/generations",
        "POST /sdapi/v1/txt2img",
        "POST /prompt",
        "POST /hf",
    ):
        assert f"| `{route}` |" in page


def test_every_error_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("errors")
    for kind in HTTP_STATUS.keys() - {MultimodalGenError}:
        assert f"| `{kind.code}` |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
