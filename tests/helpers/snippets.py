"""The commands and snippets of README and docs, and what it takes to run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
SERVER = "http://127.0.0.1:30000"
"""The server's address in the docs."""
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S
)
_RECORDED = (
    "multimodal-gen", "python", "python3", "pip", "hf", "docker", "kubectl", "helm", "serve",
    "pre-commit",
)  # fmt: skip
_STUB = """#!{python}
import json, os, sys
call = {{"argv": [{name!r}, *sys.argv[1:]], "env": dict(os.environ)}}
with open(os.environ["RECORDED_CALLS"], "a") as file:
    file.write(json.dumps(call) + "\\n")
"""
_PREAMBLE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page."""

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Call:
    """A command that a shell snippet ran, with the environment that it had."""

    argv: Sequence[str]
    env: Mapping[str, str]

    @property
    def own_env(self) -> Mapping[str, str]:
        """The environment variables that are options of `multimodal-gen`."""
        return {k: v for k, v in self.env.items() if k.startswith("MULTIMODAL_GEN_")}


def snippets_of(page: Path) -> list[Snippet]:
    """Return the fenced blocks of a page, in order."""
    return [
        Snippet(match["language"], match["title"] or "", match["text"])
        for match in _BLOCK.finditer(page.read_text())
    ]


def titled(page: Path, title: str) -> str:
    """Return the text of the snippet of a page that has this title."""
    (text,) = (snippet.text for snippet in snippets_of(page) if snippet.title == title)
    return text


class Shell:
    """Runs shell snippets in one folder, one after the other, with the variables that they export.

    `curl` asks the server at `url` and fails with its status. Commands that need more than this
    folder and that server are recorded instead of being run.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        stubs = folder.parent / "stubs"
        stubs.mkdir()
        for name in _RECORDED:
            stub = stubs / name
            stub.write_text(_STUB.format(python=sys.executable, name=name))
            stub.chmod(0o755)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "activate").touch()
        self._calls = folder.parent / "calls"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MULTIMODAL_GEN_")}
        self._env = kept | {
            "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}",
            "RECORDED_CALLS": str(self._calls),
        }

    def run(self, text: str) -> list[Call]:
        """Run a snippet; returns the recorded commands. Raises AssertionError if it fails."""
        self._calls.write_text("")
        after = self._folder.parent / "environment"
        script = _PREAMBLE + text.replace(SERVER, self._url) + f"\nenv -0 > '{after}'\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        pairs = (entry.partition("=") for entry in after.read_text().split("\0") if entry)
        self._env = {name: value for name, _, value in pairs}
        return list(self._recorded())

    def _recorded(self) -> Iterator[Call]:
        for line in self._calls.read_text().splitlines():
            call = json.loads(line)
            yield Call(call["argv"], call["env"])
