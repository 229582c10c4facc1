"""Cores that a process may use, by trees that stand for machines and containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from multimodal_gen.launch.cores import BRIEF_SPIN, Cores, usable_cores

EIGHT = frozenset(range(8))
PAIRS = {
    f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list": f"{cpu % 4},{cpu % 4 + 4}\n"
    for cpu in EIGHT
}
"""Four cores of two hardware threads."""


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_hardware_threads_of_one_core_are_one(tmp_path: Path) -> None:
    root = machine(tmp_path, PAIRS)
    assert usable_cores(root, EIGHT) == Cores(4, is_rationed=False)
    assert usable_cores(root, {0, 4, 1}).number == 2


def test_older_kernels_list_them_under_another_name(tmp_path: Path) -> None:
    names = {name.replace("core_cpus", "thread_siblings"): text for name, text in PAIRS.items()}
    assert usable_cores(machine(tmp_path, names), EIGHT).number == 4


def test_where_nothing_says_how_cpus_are_made_each_is_a_core(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, EIGHT) == Cores(8, is_rationed=False)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "7:memory:/x\n4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
    ids=["half", "less than one", "around", "nearest has none", "version 1"],
)
def test_a_container_has_the_cores_whose_time_it_is_given(
    tmp_path: Path, files: Mapping[str, str], count: int
) -> None:
    found = usable_cores(machine(tmp_path, PAIRS | files), EIGHT)
    assert found == Cores(count, is_rationed=True)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"},
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    ],
    ids=["none", "more than all", "version 1"],
)
def test_a_container_without_a_limit_has_all(tmp_path: Path, files: Mapping[str, str]) -> None:
    assert usable_cores(machine(tmp_path, PAIRS | files), EIGHT) == Cores(4, is_rationed=False)


def test_a_rank_spins_only_if_it_is_alone_and_has_all_the_time_of_its_cores() -> None:
    assert Cores(4, is_rationed=False).environment(1) == {
        "OMP_NUM_THREADS": "4",
        "GOMP_SPINCOUNT": BRIEF_SPIN,
    }
    assert Cores(4, is_rationed=True).environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert Cores(4, is_rationed=False).environment(3) == {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def test_operators_may_ask_for_fewer_threads_and_for_spinning() -> None:
    cores = Cores(4, is_rationed=True)
    assert cores.environment(2, "1", "ACTIVE") == {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "ACTIVE",
    }
    assert cores.environment(1, "64")["OMP_NUM_THREADS"] == "4"
    assert cores.environment(1, "many")["OMP_NUM_THREADS"] == "4"
