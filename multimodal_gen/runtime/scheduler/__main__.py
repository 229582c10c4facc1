"""The Scheduler's process: `python -m multimodal_gen.runtime.scheduler`, its arguments on stdin.

It does not share an interpreter with a rank, so neither has to wait for the other.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import zmq

from multimodal_gen.checkpoints.upscaler.folder import UpscalerFolder
from multimodal_gen.messages.plan import AdapterKind, RankLoaded
from multimodal_gen.messages.rank_args import SchedulerArgs, client_token
from multimodal_gen.observability.logging import configure_logging
from multimodal_gen.runtime.child_process import read_arguments
from multimodal_gen.runtime.scheduler.adapter_cache import AdapterCache
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway
from multimodal_gen.runtime.scheduler.rank_links import RankLinks
from multimodal_gen.runtime.scheduler.scheduler import Scheduler
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

log = logging.getLogger(__name__)
SHUTDOWN_S = 2.0
"""Time for the ranks to hear that the engine is shut down."""


def main() -> None:
    args = read_arguments(SchedulerArgs)
    configure_logging("scheduler", args.engine.log_format)
    status = 0
    try:
        _serve(args)
    except Exception:
        log.exception("the scheduler failed")
        status = 1
    logging.shutdown()
    os._exit(status)  # The sockets' threads may still be busy.


def _serve(args: SchedulerArgs) -> None:
    engine = args.engine
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gateway = ClientGateway(args.client_address, client_token(args.token), args.keys)
    links = RankLinks(context, args.ranks_address, engine.num_gpus, args.token, args.keys)

    def make_policy(loaded: RankLoaded) -> tuple[Policy, CostModel]:
        assert loaded.model is not None
        cost = CostModel(
            parameters=loaded.parameters,
            memory_bytes=loaded.memory_bytes,
            device=loaded.model.device,
            path=_cost_file(args, loaded),
            switches=loaded.switches,
        )
        limits = {"max_batch": engine.batching_max_size, "max_queue": engine.max_queue_size}
        return Policy(cost, **limits), cost

    folders: dict[AdapterKind, str | None] = {
        "lora": engine.lora_dir,
        "control": engine.control_dir,
    }
    adapters = AdapterCache(folders, engine.max_loaded_loras, engine.num_gpus)
    upscalers = None if engine.upscaler_dir is None else UpscalerFolder(Path(engine.upscaler_dir))
    scheduler = Scheduler(
        context, links, gateway, engine.step_timeout, make_policy, adapters, upscalers
    )
    scheduler.start()
    scheduler.join()
    links.close(SHUTDOWN_S)


def _cost_file(args: SchedulerArgs, loaded: RankLoaded) -> Path:
    """Costs, and what fits, are kept for each checkpoint on each kind of device."""
    assert loaded.model is not None
    ranks, threads = args.engine.num_gpus, os.environ.get("OMP_NUM_THREADS")
    hosts = "" if args.hosts == 1 else f" on {args.hosts}"
    machine = f"{loaded.device_name} {loaded.model.dtype} x{ranks} {threads}{hosts}"
    quantization = args.engine.quantization or ""
    told = f"{args.model_files} {quantization} {machine}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Path(args.cache_folder) / "costs" / f"{digest}.json"


if __name__ == "__main__":
    main()
