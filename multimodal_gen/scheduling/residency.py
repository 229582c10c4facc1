"""Plans where the weights of each component are while it is idle and while it works.

Pure: sizes, times and a budget in, a plan out. The same numbers give the same plan on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, permutations, product
from typing import Literal, NamedTuple

from multimodal_gen.configs.arguments.engine_args import ResidencyChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase, PhaseSwitch

ResidencyMode = Literal["device", "host", "streamed"]
"""On the device all the time; on the host between the phases that need it; streamed block by block
into the device in each evaluation, and on the host between its phases."""
MODES: dict[ResidencyChoice, tuple[ResidencyMode, ...]] = {
    "auto": ("device", "host", "streamed"),
    "device": ("device",),
    "host": ("device", "host"),
    "streamed": ("streamed",),
}
LINK_BYTES_PER_S = 12e9
"""Assumed speed of copies to the device from pinned memory: a PCIe 4.0 link in practice."""
PREFETCHED = 2
"""Blocks of a streamed component that are on the device at once: the one that runs, and the next.
If not even two fit, each is copied when it is needed."""
ROOMS = (1.0, 1 / 4, 1 / 16, 1 / 64, 0.0)
"""Shares of the working memory of usual requests that a plan may leave: all of it if it can."""
GIGABYTE = 1e9
_WORTH_TELLING = 1.05
"""Smaller slowdowns are not mentioned."""


@dataclass(frozen=True, kw_only=True)
class ComponentMemory:
    """One component of a checkpoint, in the form in which it is kept."""

    name: str
    size: int
    """Bytes of all of its weights."""
    blocks: tuple[int, ...] = ()
    """Bytes of each block that can be streamed, in order of execution."""
    evaluations: int = 1
    """Number of times that a request runs it."""
    evaluation_s: float = 0.0
    """Predicted seconds that one of them takes with all weights on the device."""


class Moment(NamedTuple):
    """Components that are needed at once, and the memory that their work takes meanwhile: such as
    the denoiser and, for previews, the VAE."""

    components: frozenset[str]
    working: int = 0
    """Bytes of activations, LoRAs and caches."""
    phase: Phase = Phase.DENOISE


@dataclass(frozen=True)
class Placement:
    """Place of one component's weights."""

    name: str
    mode: ResidencyMode
    streamed: tuple[int, ...] = ()
    """Numbers of the blocks that are streamed; the others stay while the component is in use."""
    blocks: int = 0
    """Number of blocks that it has."""
    slots: int = 0
    """Streamed blocks that are on the device at once."""
    size: int = 0
    """Bytes on the device while it is in use."""
    copied: int = 0
    """Bytes that are copied there before it can be used."""


@dataclass(frozen=True)
class ResidencyPlan:
    """Placements of all components, and what they cost."""

    placements: tuple[Placement, ...]
    moments: tuple[Moment, ...]
    """With the working memory that the plan leaves."""
    budget: int
    needed: int
    """Bytes on the device at most, with the working memory."""
    slowdown: float = 1.0
    """Predicted time of a request, relative to one with everything on the device."""
    room: float = 1.0
    """Share of the working memory of usual requests that is left."""

    def __getitem__(self, name: str) -> Placement:
        return next(each for each in self.placements if each.name == name)

    def free_in(self, phase: Phase) -> int:
        """Bytes that are left for the work of a phase."""
        taken = (
            sum(each.size for each in self.placements if _is_here(each, moment))
            for moment in self.moments
            if moment.phase is phase
        )
        return self.budget - max(taken, default=0)

    def switches(self, link: float = LINK_BYTES_PER_S) -> tuple[PhaseSwitch, ...]:
        """Changes of phase for which weights must be copied."""
        last = {moment.phase: moment for moment in self.moments}
        return tuple(
            PhaseSwitch(before.phase, after.phase, copied / link)
            for before, after in permutations(last.values(), 2)
            if (copied := self._copied(before, after))
        )

    def _copied(self, before: Moment, after: Moment) -> int:
        """Bytes that are copied, unless what both moments need is on the device together."""
        both = Moment(before.components | after.components, max(before.working, after.working))
        together = sum(each.size for each in self.placements if _is_here(each, both))
        if together + both.working <= self.budget:
            return 0
        coming = [self[name] for name in after.components - before.components]
        return sum(each.copied for each in coming if each.mode != "device")

    @property
    def sentence(self) -> str:
        """Such as `text encoders on the host between phases, transformer streamed 38 of 57 blocks,
        about 1.4× slower`."""
        moved = [each for each in self.placements if each.mode != "device"]
        told = [
            f"{_called([each.name for each in alike])} {where}"
            for where, alike in groupby(sorted(moved, key=_where), key=_where)
        ]
        if self.slowdown >= _WORTH_TELLING:
            told.append(f"about {self.slowdown:.1f}× slower")
        if 0 < self.room < 1:
            told.append(f"room for requests of 1/{1 / self.room:.0f} of the usual size")
        if not self.room:
            told.append("hardly any room for requests")
        return ", ".join(told if moved else ["all components on the device", *told])


def plan_residency(
    components: Sequence[ComponentMemory],
    moments: Sequence[Moment],
    budget: int,
    *,
    choice: ResidencyChoice = "auto",
    link: float = LINK_BYTES_PER_S,
) -> ResidencyPlan:
    """Find the fastest plan that keeps within `budget` bytes, of those that `choice` allows.

    `link` is the speed of copies to the device in bytes per second. Where nothing fits, less
    working memory is left, for smaller requests. Raises InvalidRequest that says how much is needed
    at least, if there is no plan.
    """
    for room in ROOMS:
        scaled = [each._replace(working=int(each.working * room)) for each in moments]
        planner = _Planner(components, scaled, budget, link)
        if plans := [*planner.plans(choice)]:
            return replace(min(plans, key=lambda plan: plan.slowdown), room=room)
    raise _does_not_fit(planner, choice)


class _Planner:
    def __init__(
        self,
        components: Sequence[ComponentMemory],
        moments: Sequence[Moment],
        budget: int,
        link: float,
    ) -> None:
        self.components = components
        self.moments = moments
        self.budget = budget
        self._link = link

    def plans(self, choice: ResidencyChoice) -> Iterator[ResidencyPlan]:
        """Yield the best plan for each combination of modes that fits; the first is the simplest.

        Of several components that are streamed, those get room for blocks first that run most
        often.
        """
        for modes in product(*(_modes(each, choice) for each in self.components)):
            least = {
                each.name: _streamed(each, len(each.blocks), 1)
                if mode == "streamed"
                else Placement(each.name, mode)
                for each, mode in zip(self.components, modes, strict=True)
            }
            if self.needed(least) <= self.budget:
                yield self._improved(least, choice)

    def _improved(self, placements: dict[str, Placement], choice: ResidencyChoice) -> ResidencyPlan:
        """Give streamed components the room that is left, unless they were chosen to be small."""
        for each in sorted(self.components, key=lambda each: -each.evaluations):
            if placements[each.name].mode == "streamed":
                fewest = 1 if choice == "auto" else len(each.blocks)
                options = ({**placements, each.name: o} for o in _from_fastest(each, fewest))
                placements = next(p for p in options if self.needed(p) <= self.budget)
        told = [_with_sizes(each, placements[each.name]) for each in self.components]
        return ResidencyPlan(
            placements=tuple(told),
            moments=tuple(self.moments),
            budget=self.budget,
            needed=self.needed(placements),
            slowdown=self._slowdown(placements),
        )

    def needed(self, placements: Mapping[str, Placement]) -> int:
        """Bytes on the device at the moment that needs most."""
        return max(
            moment.working
            + sum(
                occupied(each, placements[each.name])
                for each in self.components
                if each.name in moment.components or placements[each.name].mode == "device"
            )
            for moment in self.moments
        )

    def least(self, choice: ResidencyChoice) -> int:
        """Bytes that the smallest plan needs."""
        return self.needed({each.name: _smallest(each, choice) for each in self.components})

    def _slowdown(self, placements: Mapping[str, Placement]) -> float:
        alone = sum(each.evaluations * each.evaluation_s for each in self.components)
        lost = sum(self._lost(each, placements[each.name]) for each in self.components)
        return 1.0 + lost / alone if alone else 1.0 + lost

    def _lost(self, each: ComponentMemory, placement: Placement) -> float:
        """Seconds of a request in which the device waits for this component's weights.

        With prefetch, blocks are copied while others run; the first one is waited for.
        """
        if placement.mode == "device":
            return 0.0
        streamed = [each.blocks[i] for i in placement.streamed]
        visits = sum(each.name in moment.components for moment in self.moments)
        entering = visits * (each.size - sum(streamed)) / self._link
        if not streamed:
            return entering
        copying = sum(streamed) / self._link
        if placement.slots >= PREFETCHED:
            copying = max(copying - each.evaluation_s, 0.0) + streamed[0] / self._link
        return entering + each.evaluations * copying


def occupied(component: ComponentMemory, placement: Placement) -> int:
    """Bytes on the device while the component is in use."""
    streamed = [component.blocks[i] for i in placement.streamed]
    return component.size - sum(streamed) + placement.slots * max(streamed, default=0)


def _with_sizes(component: ComponentMemory, placement: Placement) -> Placement:
    size = occupied(component, placement)
    streamed = sum(component.blocks[i] for i in placement.streamed)
    return replace(placement, size=size, copied=component.size - streamed)


def _is_here(placement: Placement, moment: Moment) -> bool:
    return placement.mode == "device" or placement.name in moment.components


def _modes(component: ComponentMemory, choice: ResidencyChoice) -> list[ResidencyMode]:
    """Modes that are allowed for it: what can't be streamed is on the host between phases."""
    modes = MODES[choice]
    if len(component.blocks) > 1:
        return [*modes]
    return [mode for mode in modes if mode != "streamed"] or ["host"]


def _streamed(component: ComponentMemory, count: int, slots: int) -> Placement:
    """Stream `count` of its blocks, spread evenly: while resident ones run, others are copied."""
    total = len(component.blocks)
    chosen = [i for i in range(total) if (i + 1) * count // total > i * count // total]
    return Placement(component.name, "streamed", tuple(chosen), total, min(slots, count))


def _from_fastest(component: ComponentMemory, fewest: int) -> Iterator[Placement]:
    """Ways to stream `fewest` of its blocks, or more."""
    for slots in (PREFETCHED, 1):
        for count in range(fewest, len(component.blocks) + 1):
            yield _streamed(component, count, slots)


def _smallest(component: ComponentMemory, choice: ResidencyChoice) -> Placement:
    modes = _modes(component, choice)
    if modes[-1] == "streamed":
        return _streamed(component, len(component.blocks), 1)
    return Placement(component.name, modes[-1])


def _does_not_fit(planner: _Planner, choice: ResidencyChoice) -> InvalidRequest:
    needed = planner.least(choice)
    if choice != "auto" and (least := planner.least("auto")) <= planner.budget:
        allowed = f"needs device_memory_gb={_up(needed)} or more; auto needs {_up(least)}"
        return InvalidRequest("residency", choice, allowed)
    allowed = f"must be at least {_up(needed)} (GB): what this checkpoint needs at once"
    return InvalidRequest("device_memory_gb", float(f"{planner.budget / GIGABYTE:.4g}"), allowed)


def _up(size: int) -> str:
    """Gigabytes of a size, rounded up to four digits."""
    return f"{size * 1.0005 / GIGABYTE:.4g}"


def _where(placement: Placement) -> str:
    if placement.mode == "host":
        return "on the host between phases"
    return f"streamed {len(placement.streamed)} of {placement.blocks} blocks"


def _called(names: Sequence[str]) -> str:
    """Names for a sentence: `text encoders` for text_encoder and text_encoder_2."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.rstrip("_0123456789"), []).append(name)
    told = [f"{kind}s" if len(alike) > 1 else alike[0] for kind, alike in kinds.items()]
    return " and ".join(each.replace("_", " ") for each in told)
