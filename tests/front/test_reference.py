"""The reference pages show what the code declares, and pages link to files that exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT
from snippets import PAGES

import multimodal_gen
from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.configs.solvers import NOISE_SCHEDULES, SOLVERS
from multimodal_gen.errors import HTTP_STATUS, MultimodalGenError

REFERENCE = ROOT / "docs" / "reference"
_BOLD, _QUOTE = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"`([^`]*[ _][^`]*)`")
_OF_THE_SHELL = "multimodal-gen: command not found"
_PATH = re.compile(r"`((?:[\w.]+/)+[\w.]*)`")
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


def test_the_noise_schedules_of_every_solver_are_listed(rendered: Callable[[str], str]) -> None:
    _, _, table = rendered("models").partition("## Noise schedules")
    rows = {line.split(" | ")[0].strip("| `"): line for line in table.splitlines()}
    for name, row in SOLVERS.items():
        for schedule in row.noise_schedules[1:]:
            known = any(schedule in NOISE_SCHEDULES[view] for view in row.views)
            assert (f"`{schedule}`" in rows[name]) == known, (name, schedule)


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


def test_every_public_name_of_python_is_on_its_page() -> None:
    shown = re.findall(r"^::: ([\w.]+)$", (REFERENCE / "python.md").read_text(), re.MULTILINE)
    homes = (each.rpartition(".") for each in shown)
    found = {name: getattr(importlib.import_module(home), name) for home, _, name in homes}
    for name in {*multimodal_gen.__all__} - {"__version__"}:
        assert found[name] is getattr(multimodal_gen, name)


def test_every_error_is_listed(rendered: Callable[[str], str]) -> None:
    page = rendered("errors")
    for kind in HTTP_STATUS.keys() - {MultimodalGenError}:
        assert f"| `{kind.code}` |" in page


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/add-a-model.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(name: str) -> None:
    for path in _PATH.findall((ROOT / name).read_text()):
        places = (ROOT / path, ROOT / "multimodal_gen" / path, ROOT / "docs" / path)
        assert "NAME" in path or any(place.exists() for place in places), path


def _quoted_messages() -> Iterator[str]:
    """The messages that the headings of the troubleshooting page quote, without what varies."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    for bold in _BOLD.findall(page):
        for quote in _QUOTE.findall(bold):
            yield from filter(None, (part.strip() for part in re.split(r"…| N ", quote)))


def _texts() -> Iterator[str]:
    """The constant parts of all texts in the source."""
    for path in (ROOT / "multimodal_gen").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_that_troubleshooting_quotes_are_those_of_the_code() -> None:
    source = "\n".join(_texts())
    quoted = [message for message in _quoted_messages() if message != _OF_THE_SHELL]
    assert len(quoted) > 10
    assert [message for message in quoted if message not in source] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
