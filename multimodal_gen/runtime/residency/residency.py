"""Keeps on the device what is needed now, as planned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.residency.block_stream import BlockStream, StreamedUnit
from multimodal_gen.runtime.residency.blocks import Block, blocks_of
from multimodal_gen.runtime.residency.bundle import Bundle, bundle_of
from multimodal_gen.runtime.residency.transfers import Transfers, transfers_to
from multimodal_gen.scheduling.residency import (
    ComponentMemory,
    Placement,
    ResidencyPlan,
)


class Residency:
    """Components by where they are. Without a plan, all stay where they were loaded."""

    def __init__(self, plan: ResidencyPlan | None = None) -> None:
        self.plan = plan
        self._always = 0
        """Bytes of the components that stay."""
        self._moved: dict[str, MovedComponent] = {}
        """The others; those that were needed last are at the end."""

    @classmethod
    def of(
        cls,
        modules: Mapping[str, nn.Module],
        plan: ResidencyPlan,
        device: torch.device,
    ) -> Residency:
        """Move those to the device that stay there, and prepare the others."""
        residency = cls(plan)
        transfers = transfers_to(device)
        for name, module in modules.items():
            if plan[name].mode == "device":
                module.to(device)
                residency._always += bundle_of([module]).size
            else:
                residency._moved[name] = MovedComponent(module, plan[name], transfers, device)
        return residency

    def stream_of(self, name: str) -> BlockStream | None:
        """Stream of a component whose blocks are streamed."""
        moved = self._moved.get(name)
        return None if moved is None else moved.stream

    def stays(self, name: str) -> bool:
        """True for a component that is at the same place all the time."""
        return name not in self._moved

    @property
    def moves(self) -> bool:
        """False if all components stay where they are."""
        return self.plan is not None and bool(self._moved)

    def hold(self, names: Collection[str]) -> None:
        """Have these components on the device; others leave it where memory is needed.

        Raises torch.OutOfMemoryError, after which what was there before is as it was or gone.
        """
        if self.plan is None or not self._moved:
            return
        needed = [self._moved[name] for name in names if name in self._moved]
        room = self._room_for(self.plan, names) - sum(each.size for each in needed)
        for name, other in [*self._moved.items()]:
            if name in names:
                self._moved[name] = self._moved.pop(name)  # the last to leave
            elif other.is_here:
                room -= other.size
        for name, other in self._moved.items():
            if room < 0 and other.is_here and name not in names:
                other.leave()
                room += other.size
        for each in needed:
            each.come()

    def _room_for(self, plan: ResidencyPlan, names: Collection[str]) -> int:
        """Bytes for components that move, while these are at work."""
        working = [each.working for each in plan.moments if each.components.intersection(names)]
        return plan.budget - self._always - max(working, default=0)


class MovedComponent:
    """A component whose weights are on the device only while they are needed."""

    def __init__(
        self, module: nn.Module, placement: Placement, transfers: Transfers, device: torch.device
    ) -> None:
        blocks = blocks_of(module)
        streamed = [blocks[i] for i in placement.streamed]
        self.stream: BlockStream | None = None
        if streamed:
            units = units_of(streamed)
            self.stream = BlockStream(units, placement.slots, transfers, device)
        self._bundles = _resident_bundles(module, blocks, streamed)
        self._transfers = transfers
        self._device = device
        self._memory: list[Tensor] = []
        self.is_here = False

    @property
    def size(self) -> int:
        """Bytes on the device while it is there."""
        resident = sum(bundle.size for bundle in self._bundles)
        return resident + (self.stream.size if self.stream is not None else 0)

    def come(self) -> None:
        """Copy it to the device; its later work waits for that. No effect if it is there."""
        if self.is_here:
            return
        memory = [
            torch.empty(bundle.size, dtype=torch.uint8, device=self._device)
            for bundle in self._bundles
        ]
        if self.stream is not None:
            self.stream.open()
        self._memory = memory
        self.is_here = True
        copies = [
            copy
            for bundle, own in zip(self._bundles, memory, strict=True)
            for copy in bundle.place(own)
        ]
        self._transfers.start(copies).wait()

    def leave(self) -> None:
        """Free its memory: the host's copy is as it was."""
        for bundle in self._bundles:
            bundle.restore()
        if self.stream is not None:
            self.stream.close()
        self._memory = []
        self.is_here = False


def memory_of(
    name: str, module: nn.Module, *, evaluations: int = 1, evaluation_s: float = 0.0
) -> ComponentMemory:
    """Sizes of a component on a device; see `ComponentMemory` for the others."""
    blocks = tuple(bundle_of([block[-1]]).size for block in blocks_of(module))
    rest = bundle_of([module], without=[block[-1] for block in blocks_of(module)]).size
    return ComponentMemory(
        name=name,
        size=rest + sum(blocks),
        blocks=blocks,
        evaluations=evaluations,
        evaluation_s=evaluation_s,
    )


def units_of(blocks: Sequence[Block]) -> list[StreamedUnit]:
    """Units of these blocks, in order: first what is called ahead of the first block."""
    ahead = [module for block in blocks for module in block[:-1]]
    return [
        *(StreamedUnit(module) for module in ahead),
        *(StreamedUnit(block[-1], without=ahead) for block in blocks),
    ]


def _resident_bundles(
    module: nn.Module, blocks: Sequence[Block], streamed: Sequence[Block]
) -> list[Bundle]:
    """Bundles of what is in no block, and of each block that is not streamed."""
    resident = [block[-1] for block in blocks if block not in streamed]
    bundles = [bundle_of([module], without=[block[-1] for block in blocks])]
    bundles += [bundle_of([block]) for block in resident]
    return [bundle for bundle in bundles if bundle.size]
