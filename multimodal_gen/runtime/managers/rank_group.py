"""Lets a rank meet the others of its engine, after making sure that all run the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch

from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.distributed.agreement import require_alike, versions
from multimodal_gen.runtime.distributed.link_store import Store
from multimodal_gen.runtime.distributed.mesh import init_process_group
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.content import content_digests

JOIN_S = 300.0
"""Minimum timeout between ranks: loading takes longer than a step. A rank that stops responding
during a step is detected by the Scheduler."""


def join_ranks(args: RankArgs, store: Store, device: torch.device, dtype: torch.dtype) -> None:
    """Meet at `store`. Raises InvalidRequest if this host's files or packages aren't rank 0's."""
    size, place = args.engine.num_gpus, args.place
    if size > place.local_ranks:
        facts = {**versions(), "device": device.type, "dtype": str(dtype), **_contents(args)}
        require_alike(store, args.rank, args.rank // place.local_ranks, facts)
    timeout = timedelta(seconds=max(JOIN_S, args.engine.step_timeout))
    init_process_group(args.rank, size, store, device, timeout, place.interface)


def _contents(args: RankArgs) -> dict[str, str]:
    file = None if args.model_file is None else Path(args.model_file)
    files = {name: Path(path) for name, path in args.component_files.items()}
    checkpoint = Checkpoint.open(Path(args.model_folder), file, files)
    return {f"the content of {name}": each for name, each in content_digests(checkpoint).items()}
