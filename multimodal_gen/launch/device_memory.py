"""Memory of this machine's device, without asking torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multimodal_gen.launch.child_environment import child_environment

_MEBIBYTE = 1 << 20
_TIMEOUT_S = 5


@dataclass(frozen=True)
class DeviceMemory:
    """A device and the bytes that are free on it."""

    name: str
    is_cpu: bool
    free: int


def device_at_hand() -> DeviceMemory | None:
    """The first GPU that the driver reports, else the CPU; None if its memory is not known."""
    return gpu_of(_nvidia_smi) or cpu_of(Path("/proc/meminfo"))


def gpu_of(ask: Callable[[], str]) -> DeviceMemory | None:
    """The first GPU in the answer, if there is one."""
    return next(iter(gpus(ask)), None)


def gpus(ask: Callable[[], str] | None = None) -> list[DeviceMemory]:
    """The GPUs in the answer, whose lines are `name, free MiB`; none if it can't be read."""
    try:
        lines = [line.rsplit(",", 1) for line in (ask or _nvidia_smi)().splitlines()]
        return [DeviceMemory(n.strip(), False, int(free) * _MEBIBYTE) for n, free in lines]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def cpu_of(meminfo: Path) -> DeviceMemory | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return DeviceMemory("the CPU", True, int(line.split()[1]) * 1024)
    return None


def _nvidia_smi() -> str:
    environment = child_environment()  # without folders that depend on the working folder
    program = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    if program is None:
        return ""
    query = ["--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        [program, *query],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
        env=environment,
    )
    return done.stdout
