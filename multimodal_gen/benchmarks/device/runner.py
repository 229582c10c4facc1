"""Runs the sections one after another, and collects what they find."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from multimodal_gen.benchmarks.device.sections import DEVICE, SECTIONS, WHOLE_S
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, Report
from multimodal_gen.launch.child_environment import child_environment
from multimodal_gen.messages.reply import WireError

_MODULE = "multimodal_gen.benchmarks.device"
_DESCRIBING_S = 60.0
"""Seconds for the first contact with the device."""


class Described(msgspec.Struct, frozen=True, tag="described"):
    """The device and the versions of the libraries."""

    environment: dict[str, str | int]


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    figure: Figure


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The section ends with an error."""

    error: WireError


Found = Described | Measured | Broken


def measure_device(
    device: str,
    scale: Scale,
    say: Callable[[str], None],
    sections: Sequence[str] = tuple(SECTIONS),
    seconds: float = WHOLE_S,
) -> Report:
    """Measure whatever fits into so many seconds. Raises InvalidRequest if there is no such
    device."""
    end = time.monotonic() + seconds
    say(f"looking for the device {device}")
    environment: dict[str, str | int] = {}
    for found in _run(DEVICE, device, scale, _DESCRIBING_S):
        if isinstance(found, Broken):
            raise found.error.exception()
        if isinstance(found, Described):
            environment = found.environment
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    for name in sections:
        limit = min(SECTIONS[name], end - time.monotonic())
        say(f"{name}: at most {max(0, limit):.0f} s")
        for found in _run(name, device, scale, limit):
            if isinstance(found, Measured):
                figures.append(found.figure)
            elif isinstance(found, Broken):
                failures[name] = found.error.message
    return Report(environment=environment, figures=figures, failures=failures)


def _run(section: str, device: str, scale: Scale, limit: float) -> list[Found]:
    """Findings of a section, and how it ended if that was not well."""
    if limit <= 0:
        return [_broken("no time was left for it")]
    process = subprocess.Popen(
        [sys.executable, "-m", _MODULE, section, device, scale],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    late = False
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        output, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    whole = output[: output.rfind(b"\n") + 1]
    found = [msgspec.json.decode(line, type=Found) for line in whole.splitlines()]
    if late:
        found.append(_broken(f"ended after {limit:.0f} s"))
    elif process.returncode and not any(isinstance(each, Broken) for each in found):
        found.append(_broken(f"ended with status {process.returncode}"))
    return found


def _broken(message: str) -> Broken:
    return Broken(WireError(code="generation_failed", message=message))
