"""Picks the numbers of ranks on each axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.scheduling.parallel.machines import Machine
from multimodal_gen.scheduling.parallel.rank_work import estimated_work, seconds
from multimodal_gen.scheduling.parallel.shape import Evaluation

_TOLD = ("ulysses", "ring", "tensor")
"""Axes that are told of as alternatives."""
_ALIKE = 1.05
"""Of products that take about as long, the simplest is picked: the estimate is no better."""
_MILLISECOND = 1e-3


@dataclass(frozen=True)
class ParallelChoice:
    """The fastest product that the arguments allow, and why."""

    config: ParallelConfig
    sentence: str
    """Such as `8 ranks: cfg 2 x ulysses 4, about 46 ms an evaluation, 68% of 8 times as fast;
    instead, ulysses 8 46.3 ms, ring 8 65.8 ms, tensor 8 120 ms`."""


def choose_parallel(args: EngineArgs, work: Evaluation | None, machine: Machine) -> ParallelChoice:
    """Keep the degrees that are given, and pick the others by the predicted time.

    `work` is None for a denoiser whose sequence and layers can't be shared: then all ranks share
    the rows. Raises InvalidRequest if the arguments want it otherwise.
    """
    ranks = args.num_gpus
    if work is None:
        _refuse_degrees(args)
        return ParallelChoice(ParallelConfig(cfg=ranks), f"{ranks} ranks: cfg {ranks}")
    times = {
        config: seconds(estimated_work(work, config, machine), config, machine)
        for config in _products(ranks)
    }
    allowed = [config for config in times if _is_allowed(config, args)]
    fastest = min(times[config] for config in allowed)
    alike = [config for config in allowed if times[config] <= _ALIKE * fastest]
    best = min(alike, key=lambda on: (on.tensor, on.ring, abs(on.cfg - work.rows)))
    return ParallelChoice(best, _told(best, times, _alone(work, machine)))


def _refuse_degrees(args: EngineArgs) -> None:
    for name in ("ulysses_degree", "ring_degree", "tensor_degree"):
        if (degree := getattr(args, name)) is not None and degree > 1:
            allowed = "must be 1 or left out: this model's denoiser can't be split"
            raise InvalidRequest(name, degree, allowed)


def _products(ranks: int) -> Iterator[ParallelConfig]:
    degrees = [degree for degree in range(1, ranks + 1) if ranks % degree == 0]
    for tensor, ring, cfg in product(degrees, repeat=3):
        ulysses, rest = divmod(ranks, cfg * ring * tensor)
        if ulysses and not rest:
            yield ParallelConfig(cfg=cfg, ring=ring, ulysses=ulysses, tensor=tensor)


def _is_allowed(config: ParallelConfig, args: EngineArgs) -> bool:
    asked = {
        "ulysses": args.ulysses_degree,
        "ring": args.ring_degree,
        "tensor": args.tensor_degree,
    }
    as_asked = all(asked[axis] in (None, getattr(config, axis)) for axis in asked)
    return as_asked and (config.cfg % 2 == 0 or not args.enable_cfg_parallel)


def _alone(work: Evaluation, machine: Machine) -> float:
    """Seconds of an evaluation on one such device, if its memory were enough."""
    one = ParallelConfig()
    return seconds(estimated_work(work, one, machine.with_memory(math.inf)), one, machine)


def _told(best: ParallelConfig, times: dict[ParallelConfig, float], alone: float) -> str:
    ranks = math.prod(asdict(best).values())
    others = (ParallelConfig(**{axis: ranks}) for axis in _TOLD)
    told = [f"{_called(each)} {_ms(times[each])}" for each in others if each != best]
    share = alone / times[best] / ranks
    chosen = (
        f"{ranks} ranks: {_called(best)}, about {_ms(times[best])} an evaluation, {share:.0%} of "
        f"{ranks} times as fast"
    )
    return f"{chosen}; instead, {', '.join(told)}" if told else chosen


def _called(config: ParallelConfig) -> str:
    degrees = (f"{axis} {degree}" for axis, degree in asdict(config).items() if degree > 1)
    return " x ".join(degrees)


def _ms(duration: float) -> str:
    return f"{duration / _MILLISECOND:.3g} ms"
