"""Cores that this process may use, and the threads of those who share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath
from typing import NamedTuple

BRIEF_SPIN = "1000"
"""Rounds that a thread of OpenMP waits before it sleeps. Its own default, 300,000, is milliseconds:
each operation would wait that long for a mate that another program displaced."""


class Cores(NamedTuple):
    """Cores of this machine that this process may use."""

    number: int
    """At least 1."""
    is_rationed: bool
    """True if a container is given less time than these cores have: waiting is not free."""

    def environment(self, ranks: int, asked: str = "", policy: str = "") -> dict[str, str]:
        """OpenMP's variables for each of `ranks` processes, within what the operator asked for.

        A single rank spins between two small operations, which is faster, but briefly: a thread
        that spins keeps another program, or its own mate, from the core that it waits for. Ranks
        that share cores, or are given little time, don't.
        """
        fair = max(1, self.number // ranks)
        threads = min(fair, int(asked)) if asked.isdigit() and int(asked) else fair
        if not policy and (ranks > 1 or self.is_rationed):
            policy = "PASSIVE"
        waiting = {"OMP_WAIT_POLICY": policy} if policy else {"GOMP_SPINCOUNT": BRIEF_SPIN}
        return {"OMP_NUM_THREADS": str(threads), **waiting}


def usable_cores(root: Path = Path("/"), allowed: Set[int] | None = None) -> Cores:
    """Count the cores, not their hardware threads, that the affinity and the container's limit
    allow. `root` holds /proc and /sys, `allowed` is the affinity."""
    cpus = _affinity() if allowed is None else allowed
    cores = len({_core(root, cpu) for cpu in cpus})
    ration = min(_rations(root), default=float("inf"))
    return Cores(max(1, int(min(cores, ration))), ration < cores)


def _affinity() -> Set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(root: Path, cpu: int) -> str:
    """The hardware threads of a CPU's core, as Linux lists them."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        if listed := _read(folder / name):
            return listed
    return str(cpu)


def _rations(root: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group around this process gives, of either version."""
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounted = [base]
        elif "cpu" in controllers.split(","):
            mounted = [base / controllers, base / "cpu"]
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for mount in mounted:
            # A container sees its own group as the root, whatever the path says.
            yield from filter(None, (_ration(mount / each) for each in (inner, *inner.parents)))


def _ration(group: Path) -> float | None:
    """A group's quota over its period, in microseconds; None if it has no limit."""
    found = _read(group / "cpu.max").split()
    if not found:
        found = [_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if not all(each.isdigit() for each in found):  # "max", "-1", or no such file
        return None
    quota, period = (*map(int, found), 100_000)[:2]
    return quota / period if period else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
