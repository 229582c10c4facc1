"""Decides how the ranks share evaluations, before anything is loaded."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace

import msgspec
import torch

from multimodal_gen.configs.families import FamilyConfig, family_named
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.distributed.collectives import from_first_rank, smallest
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.choice import ParallelChoice, choose_parallel
from multimodal_gen.scheduling.parallel.machines import Machine, cpu_ranks, gpu_called
from multimodal_gen.scheduling.parallel.shape import Evaluation
from multimodal_gen.scheduling.residency import GIGABYTE
from multimodal_gen.scheduling.working_memory import evaluation_bytes, tokens_of

log = logging.getLogger(__name__)
_FOR_WEIGHTS = 0.9
"""Share of a device's free memory that weights and activations may take."""


def agreed_parallel(
    args: RankArgs, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> ParallelChoice:
    """The first rank's choice, on every rank. Collective if there are several ranks.

    Raises InvalidRequest, InvalidCheckpoint; those that a checkpoint or arguments cause are raised
    on every rank.
    """
    if args.engine.num_gpus == 1:
        return ParallelChoice(ParallelConfig(), "")
    work = usual_evaluation(checkpoint, dtype)
    choice = choose_parallel(args.engine, work, _machine(args, device, work))
    told = from_first_rank(msgspec.msgpack.encode(choice.config))
    if args.rank == 0:
        log.info("%s", choice.sentence)
    return replace(choice, config=msgspec.msgpack.decode(told, type=ParallelConfig))


def usual_evaluation(checkpoint: Checkpoint, dtype: torch.dtype) -> Evaluation | None:
    """An evaluation of the default size; None if ranks can only share its rows."""
    family = family_named(checkpoint.pipeline_class)
    if not family.ulysses:
        return None
    module = importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}")
    kind = module.PIPELINE.variant(checkpoint)
    names = [name for name in checkpoint.components if name.startswith(kind.denoiser_name)]
    config: TransformerConfig = kind.native.config_class.from_dict(checkpoint.config(names[0]))
    defaults = checkpoint.defaults(kind.default_params(checkpoint))
    embedded = bool(getattr(config, "guidance_embeds", False))
    tokens = tokens_of(defaults)
    return Evaluation(
        shape=config.shape,
        rows=_rows(family, defaults, embedded=embedded),
        tokens=tokens,
        output=tokens * config.shape.channels,
        itemsize=dtype.itemsize,
        weights=float(sum(checkpoint.size(name) for name in names)),
    )


def _rows(family: FamilyConfig, defaults: Defaults, *, embedded: bool) -> int:
    """Two if requests are guided by default."""
    if "true_cfg_scale" in family.parameters:
        return 2 if (defaults.true_cfg_scale or 1) > 1 else 1
    return 2 if (defaults.guidance_scale or 0) > 1 and not embedded else 1


def _machine(args: RankArgs, device: torch.device, work: Evaluation | None) -> Machine:
    """This rank's device, and the links between all."""
    per_host, limit = args.place.local_ranks, args.engine.device_memory_gb
    if device.type != "cuda":
        return replace(cpu_ranks(per_host), ranks_per_host=per_host)
    free, _ = torch.cuda.mem_get_info(device)
    free = smallest(free if limit is None else int(limit * GIGABYTE), device)
    needed = 0 if work is None else evaluation_bytes(int(work.weights // 2), work.tokens)
    machine = gpu_called(torch.cuda.get_device_properties(device).name)
    return replace(machine, memory_bytes=_FOR_WEIGHTS * free - needed, ranks_per_host=per_host)
