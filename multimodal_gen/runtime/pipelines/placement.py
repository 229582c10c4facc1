"""Decides where the components of a checkpoint are, before its pipeline is made of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn

from multimodal_gen.configs.arguments.engine_args import ResidencyChoice
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.plan import ENHANCED_TOKENS, Phase
from multimodal_gen.runtime.distributed.collectives import from_first_rank, smallest
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.enhancer.enhancer import ENHANCER
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.residency.residency import Residency, memory_of
from multimodal_gen.scheduling.residency import (
    GIGABYTE,
    ComponentMemory,
    ResidencyPlan,
    plan_residency,
)
from multimodal_gen.scheduling.working_memory import (
    evaluation_bytes,
    expected_work,
    moments_of,
    tokens_of,
)

log = logging.getLogger(__name__)
_WEIGHTS = ("*.safetensors", "*.gguf")
_SURE = 0.95
"""Share of the budget that may be needed without a closer look."""


@dataclass(frozen=True)
class MemoryBudget:
    """Memory of a device that an engine may use, and the modes that it may choose from."""

    size: int
    """Bytes, on each rank's device."""
    choice: ResidencyChoice = "auto"
    decoding: int = 0
    """Bytes of activations that a decode may take, if a tile needs no more."""

    @classmethod
    def of(
        cls,
        context: RankContext,
        gigabytes: float | None,
        choice: ResidencyChoice,
        decoding: int = 0,
    ) -> MemoryBudget | None:
        """The smallest of all ranks, which so agree on one plan; by default what is free.

        None on a CPU, whose weights are pages of their files wherever that is possible.
        """
        if context.device.type == "cpu":
            return None
        if gigabytes is None and context.device.type != "cuda":
            return None
        if gigabytes is None:
            size, _ = torch.cuda.mem_get_info(context.device)
        else:
            size = int(gigabytes * GIGABYTE)
            _limit_allocations(size, context.device)
        return cls(smallest(size, context.device), choice, decoding)

    def holds(
        self, checkpoint: Checkpoint, dtype: torch.dtype, defaults: Defaults, more: int = 0
    ) -> bool:
        """True if everything in a checkpoint's files, and `more` bytes of others, is sure to stay
        on the device: then it can be loaded there at once."""
        files = {path for kind in _WEIGHTS for path in checkpoint.folder.rglob(kind)}
        files |= {own.header.path for own in checkpoint.files.values()}
        widened = max(1, dtype.itemsize // 2)
        size = widened * (more + sum(path.stat().st_size for path in files))
        working = max(evaluation_bytes(size // 2, tokens_of(defaults)), self.decoding)
        return self.choice in ("auto", "device") and size + working <= _SURE * self.size


def _limit_allocations(size: int, device: torch.device) -> None:
    """Have a GPU's allocator fail beyond the budget, so that other processes have the rest."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), device)


def place(
    kind: type[ComposedPipeline],
    components: Mapping[str, Any],
    defaults: Defaults,
    context: RankContext,
    budget: MemoryBudget,
) -> Residency:
    """Plan for components that were loaded on the host, and move those to the device that stay
    there. Raises InvalidRequest if there is no plan."""
    modules = {name: each for name, each in components.items() if isinstance(each, nn.Module)}
    plan = _agreed_plan(kind, modules, defaults, context, budget)
    if context.mesh.rank == 0:
        needed, given = plan.needed / GIGABYTE, budget.size / GIGABYTE
        log.info("%s (%.2f GB of %.2f)", plan.sentence, needed, given)
    here = {name: each for name, each in modules.items() if not _is_outline(each)}
    return Residency.of(here, plan, context.device)


def _agreed_plan(
    kind: type[ComposedPipeline],
    modules: Mapping[str, nn.Module],
    defaults: Defaults,
    context: RankContext,
    budget: MemoryBudget,
) -> ResidencyPlan:
    """The first rank's, which has all components."""
    found = b""
    if context.mesh.rank == 0:
        sizes = [_memory(kind, name, module, defaults) for name, module in modules.items()]
        parameters = {name: _parameters(module) for name, module in modules.items()}
        groups = kind.needed_together([name for name in modules if name != ENHANCER])
        if ENHANCER in modules:
            groups = [(Phase.ENHANCE, (ENHANCER,)), *groups]
        decoding = budget.decoding
        if kind.family.shares_rows and (Phase.DECODE, ("vae",)) in groups:
            decoding = max(decoding, _decode_bytes(kind, modules["vae"], defaults, decoding))
        moments = [*moments_of(groups, parameters, defaults, decoding)]
        plan = plan_residency(sizes, moments, budget.size, choice=budget.choice)
        found = msgspec.msgpack.encode(plan)
    return msgspec.msgpack.decode(from_first_rank(found), type=ResidencyPlan)


def _memory(
    kind: type[ComposedPipeline], name: str, module: nn.Module, defaults: Defaults
) -> ComponentMemory:
    denoises = name.startswith(kind.denoiser_name)
    evaluations, seconds = expected_work(_parameters(module), defaults, denoises=denoises)
    if name == ENHANCER:
        evaluations = ENHANCED_TOKENS
    return memory_of(name, module, evaluations=evaluations, evaluation_s=seconds)


def _decode_bytes(
    kind: type[ComposedPipeline], module: nn.Module, defaults: Defaults, room: int
) -> int:
    """Bytes of decoding the default size, in tiles if it needs more than `room`."""
    vae = kind.vae_class(module)
    vae.room = room
    frames = (defaults.num_frames - 1) // vae.frame_multiple + 1
    return vae.peak_bytes(defaults.height, defaults.width, frames)


def _is_outline(module: nn.Module) -> bool:
    """True for an encoder on a rank that does not encode."""
    return any(parameter.is_meta for parameter in module.parameters())


def _parameters(module: nn.Module) -> int:
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() for tensor in tensors)
