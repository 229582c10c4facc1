"""Projects counted evaluations to eight H200 GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from multimodal_gen.benchmarks.parallel.projected_models import ProjectedModel
from multimodal_gen.benchmarks.parallel.timeline import Timeline
from multimodal_gen.benchmarks.parallel.work import work_of
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.scheduling.parallel.machines import gpu_called
from multimodal_gen.scheduling.parallel.rank_work import Duration, RankWork, duration

RANKS = 8
MACHINE = gpu_called("NVIDIA H200")


@dataclass(frozen=True)
class Projection:
    """An evaluation on one product of axes."""

    on: ParallelConfig
    work: RankWork
    took: Duration
    """Its parts, as if nothing overlapped."""
    seconds: float
    seconds_reading: float
    """The same if small products take as long as reading their weights."""
    efficiency: float
    """Time on one device, relative to that of all ranks together."""
    efficiency_reading: float
    efficiency_apart: float
    """Without any overlap: not even of launches and the device's work."""


def products_of(ranks: int, rows: int) -> Iterator[ParallelConfig]:
    """Products that give all ranks work for so many rows."""
    for cfg in range(1, rows + 1):
        left = ranks // cfg
        for axis in ("ulysses", "ring", "tensor"):
            yield ParallelConfig(cfg=cfg, **{axis: left})

        yield ParallelConfig(cfg=cfg, ring=2, ulysses=left // 2)
        yield ParallelConfig(cfg=cfg, ulysses=left // 2, tensor=2)


def project(model: ProjectedModel, products: Sequence[ParallelConfig]) -> list[Projection]:
    """Project each product, the fastest first; the ranks must be pretended already."""
    alone = _projected(model, ParallelConfig(), None)
    found = [_projected(model, on, alone) for on in products]
    return sorted(found, key=lambda each: each.seconds)


def _projected(model: ProjectedModel, on: ParallelConfig, alone: Projection | None) -> Projection:
    plain, reading = Timeline(MACHINE), Timeline(MACHINE, reads_weights=True)
    work = work_of(model, on, (plain, reading))
    took = duration(work, on, MACHINE)
    times = (plain.seconds, reading.seconds, took.device + took.launches)
    if alone is None:
        return Projection(on, work, took, times[0], times[1], 1.0, 1.0, 1.0)
    before = (alone.seconds, alone.seconds_reading, alone.took.device + alone.took.launches)
    gained = [one / all_ / RANKS for one, all_ in zip(before, times, strict=True)]
    return Projection(on, work, took, times[0], times[1], *gained)


def described(each: Projection) -> str:
    """One line: the product, its time in milliseconds by parts, and the efficiencies."""
    name = " x ".join(f"{axis} {n}" for axis, n in asdict(each.on).items() if n > 1)
    took = each.took
    sent = sum(traffic.sent for traffic in each.work.exchanged.values())
    exchanges = sum(traffic.exchanges for traffic in each.work.exchanged.values())
    return (
        f"{name:22} {1e3 * each.seconds:9.1f} {1e3 * took.products:9.1f} {1e3 * took.passes:8.1f} "
        f"{1e3 * took.latency:7.1f} {1e3 * took.transfer:8.1f} {1e3 * took.launches:8.1f} "
        f"{sent / 1e6:9.0f} {exchanges:9} {each.efficiency:7.1%} {each.efficiency_reading:8.1%} "
        f"{each.efficiency_apart:7.1%}"
    )


HEADER = (
    f"{'product':22} {'ms':>9} {'products':>9} {'passes':>8} {'latency':>7} {'transfer':>8} "
    f"{'launches':>8} {'MB sent':>9} {'exchanges':>9} {'of 8x':>7} {'reading':>8} "
    f"{'apart':>7}"
)
