"""Measures how long commands take in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import msgspec

from multimodal_gen.benchmarks.report import Figure, median, ratio
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.child_environment import child_environment

COMMAND = (sys.executable, "-m", "multimodal_gen.entrypoints.cli")
"""Equivalent to the installed script `multimodal-gen`."""
PLAIN_SCRIPT = (sys.executable, "-m", "multimodal_gen.benchmarks.plain_script")
HELP_TARGET_S = 0.5
COLD_REPEATS = 3
"""Maximum; each takes several seconds."""


def help_text(session: Session) -> list[Figure]:
    figures = []
    for arguments in (["--help"], ["generate", "--help"]):
        shown = " ".join(arguments)
        seconds = [_seconds([*COMMAND, *arguments]) for _ in range(session.repeats)]
        session.say(f"{shown}: done")
        name = f"help/{arguments[0].strip('-')}"
        what = f"seconds of multimodal-gen {shown}"
        figures.append(median(name, what, seconds, "s", target=HELP_TARGET_S))
    return figures


def cold_start(session: Session) -> list[Figure]:
    """Seconds from process start to one image file: this command against a plain diffusers
    script."""
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-") as folder:
        path = Path(folder) / "picture.png"
        ours, theirs = session.alternate(
            "cold start",
            lambda: _seconds(_generate_command(session, path)),
            lambda: _seconds(_plain_command(session, path)),
            repeats=min(session.repeats, COLD_REPEATS),
        )
    what = (
        "seconds from process start to the image, `generate` relative to a plain diffusers script"
    )
    return [ratio("cold_start", what, ours, theirs, target=1.0)]


def _generate_command(session: Session, path: Path) -> list[str]:
    request = session.workload.request()
    args = replace(session.engine_args, model_path=str(session.folder))
    what = [f"--prompt={request.prompt}", f"--seed={request.seed}", f"--output-path={path}"]
    return [*COMMAND, "generate", *what, *_options(args)]


def _options(args: EngineArgs) -> list[str]:
    """Options that differ from the defaults, as a user would type them."""
    values = {
        field.name.replace("_", "-"): getattr(args, field.name)
        for field in fields(args)
        if getattr(args, field.name) != field.default
    }
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in values.items()]


def _plain_command(session: Session, path: Path) -> list[str]:
    request, model = session.workload.request(), session.model
    settings = msgspec.json.encode(request.settings).decode()
    where = [str(session.folder), model.device, model.dtype]
    return [*PLAIN_SCRIPT, *where, request.prompt, str(request.seed), settings, str(path)]


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise MultimodalGenError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return seconds
