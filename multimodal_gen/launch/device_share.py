"""Divides the devices and cores of this machine among its engines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.launch.cores import usable_cores
from multimodal_gen.launch.device_memory import gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def shares_of(engines: Sequence[EngineArgs]) -> list[Mapping[str, str]]:
    """Environment of each engine. One that is alone has everything."""
    if len(engines) < 2:
        return [{} for _ in engines]
    devices = iter(_devices([each for each in engines if each.device != "cpu"]))
    asked = os.environ.get("OMP_NUM_THREADS", ""), os.environ.get("OMP_WAIT_POLICY", "")
    threads = usable_cores().environment(sum(each.num_gpus for each in engines), *asked)
    return [{**threads, **({} if each.device == "cpu" else next(devices))} for each in engines]


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(index) for index in range(len(gpus()))]


def _devices(engines: Sequence[EngineArgs]) -> Iterator[Mapping[str, str]]:
    """Deal the GPUs out in turn; engines share them if there are too few."""
    names = visible_devices() if engines else []
    first = 0
    for each in engines:
        if each.num_gpus > len(names):  # no GPU, or a mistake that the engine reports
            yield {}
            continue
        own = [names[(first + index) % len(names)] for index in range(each.num_gpus)]
        first += each.num_gpus
        yield {VISIBLE: ",".join(own)}
