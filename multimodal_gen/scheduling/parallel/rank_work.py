"""Work of one rank in an evaluation, and the time that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.scheduling.parallel.machines import NETWORK, Interconnect, Machine
from multimodal_gen.scheduling.parallel.shape import Evaluation, share
from multimodal_gen.scheduling.parallel.traffic import AxisName, Traffic, traffic
from multimodal_gen.scheduling.residency import LINK_BYTES_PER_S

PASSES = 70
"""Times that each attention's block reads or writes all of its tokens, outside of products: 62 to
115 were counted of FLUX.1, Qwen-Image and Wan."""
LAUNCHES = 30
"""Operations of such a block: 20 to 42 were counted."""
RING_PASSES, RING_LAUNCHES = 8, 8
"""The same for each turn of a ring, whose outputs are merged: 8 were counted."""
EXCHANGE_LAUNCHES = 3
"""Operations that put in order what is sent and what is received."""


@dataclass(frozen=True, kw_only=True)
class RankWork:
    """Work of the rank with the largest shares in an evaluation."""

    operations: float
    """Floating-point operations of products and attention."""
    passes: float
    """Bytes of the device's memory that all other operations read and write."""
    launches: int
    """Operations that are not views; exchanges apart."""
    exchanged: Mapping[AxisName, Traffic]
    attention: float = 0.0
    """Operations during which keys and values go around a ring."""
    copied: float = 0.0
    """Bytes of weights that are copied to the device, as they don't fit there."""


def estimated_work(work: Evaluation, on: ParallelConfig, machine: Machine) -> RankWork:
    """Estimate without running the model."""
    shape, rows = work.shape, math.ceil(work.rows / on.cfg)
    tokens = share(work.tokens, on.ring * on.ulysses)
    layers, heads = share(shape.heads, on.tensor), share(shape.heads, on.tensor * on.ulysses)
    products = work.products * tokens * layers
    attention = work.attention * share(work.tokens, on.ring) * heads
    exchanged = traffic(work, on)
    exchanges = sum(each.exchanges for each in exchanged.values())
    turns = on.ring - 1
    whole = work.tokens * tokens * shape.width * work.itemsize * shape.attentions
    return RankWork(
        operations=rows * (products + attention),
        passes=rows * (PASSES + turns * RING_PASSES / on.tensor) * whole,
        launches=(LAUNCHES + turns * RING_LAUNCHES) * shape.attentions
        + EXCHANGE_LAUNCHES * exchanges,
        attention=rows * attention * turns / on.ring,
        exchanged=exchanged,
        copied=max(0.0, work.weights_on_rank(on.tensor) - machine.memory_bytes),
    )


class Duration(NamedTuple):
    """Parts of the time that an evaluation takes on a rank."""

    products: float
    passes: float
    latency: float
    """Of exchanges."""
    transfer: float
    """Of their bytes."""
    launches: float
    """Time of the host."""
    copies: float
    """Of weights."""

    @property
    def device(self) -> float:
        """One after the other: products, passes over memory, exchanges."""
        return self.products + self.passes + self.latency + self.transfer


def duration(work: RankWork, on: ParallelConfig, machine: Machine) -> Duration:
    """Parts of the time of an evaluation."""
    links = {axis: _link(axis, on, machine) for axis in work.exchanged}
    moved = [(each, links[axis]) for axis, each in work.exchanged.items()]
    exchanges = sum(each.exchanges for each, _ in moved)
    return Duration(
        products=work.operations / machine.operations_per_s,
        passes=work.passes / machine.memory_bytes_per_s,
        latency=sum(each.exchanges * link.latency_s for each, link in moved),
        transfer=sum(each.sent / link.bytes_per_s for each, link in moved),
        launches=(work.launches + exchanges) * machine.launch_s,
        copies=work.copied / LINK_BYTES_PER_S,
    )


def seconds(work: RankWork, on: ParallelConfig, machine: Machine) -> float:
    """Time of an evaluation. A GPU works while its host launches what follows, while weights that
    don't fit are copied there, and while exchanges go on that nothing waits for yet."""
    took = duration(work, on, machine)
    if not machine.queues:
        return took.device + took.launches
    return max(took.device - _hidden(work, on, machine), took.launches, took.copies)


def _hidden(work: RankWork, on: ParallelConfig, machine: Machine) -> float:
    """Time of exchanges behind other work: a ring's next block during attention to this one, and
    the values of Ulysses, one of three exchanges and a quarter of the bytes, during the norm and
    the rotation of queries and keys."""
    ring, ulysses = (work.exchanged.get(axis, Traffic()) for axis in ("ring", "ulysses"))
    around, between = (_link(axis, on, machine) for axis in ("ring", "ulysses"))
    attention = work.attention / machine.operations_per_s
    values = ulysses.exchanges / 3 * between.latency_s + ulysses.sent / 4 / between.bytes_per_s
    passed = ring.exchanges * around.latency_s + ring.sent / around.bytes_per_s
    return min(attention, passed) + min(values, work.passes / 4 / machine.memory_bytes_per_s)


def _link(axis: AxisName, on: ParallelConfig, machine: Machine) -> Interconnect:
    """The slowest link between ranks of an axis: ranks of inner axes are next to each other."""
    inner = {
        "tensor": on.tensor,
        "ulysses": on.tensor * on.ulysses,
        "ring": on.tensor * on.ulysses * on.ring,
        "sequence": on.tensor * on.ulysses * on.ring,
        "cfg": on.tensor * on.ulysses * on.ring * on.cfg,
    }
    on_one_host = machine.ranks_per_host is None or inner[axis] <= machine.ranks_per_host
    return machine.link if on_one_host else NETWORK
