"""One rank of an engine: `python -m multimodal_gen.runtime.rank`, with its arguments on stdin.

Standard input stays open while the parent lives; when it closes, the rank exits.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import shutil
import sys
import threading
from pathlib import Path

import msgspec
import zmq

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.plan import RankLoaded
from multimodal_gen.messages.rank_args import RankArgs, client_token
from multimodal_gen.messages.reply import WireError
from multimodal_gen.observability.logging import configure_logging
from multimodal_gen.runtime.managers.client_gateway import ClientGateway
from multimodal_gen.runtime.managers.lora_cache import LoraCache
from multimodal_gen.runtime.managers.rank_links import RankLinks
from multimodal_gen.runtime.managers.rank_scheduler import RankScheduler
from multimodal_gen.runtime.managers.scheduler import Scheduler
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

log = logging.getLogger(__name__)
OWN_RANK = "inproc://ranks"
FILES = 2
"""Maximum number of files that ranks create in their folder: two sockets."""


def main() -> None:
    args = _read_args()
    configure_logging(f"rank {args.rank}", args.engine.log_format)
    threading.Thread(target=_end_with_parent, args=(args,), daemon=True).start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    scheduler = _start_scheduler(context, args) if args.rank == 0 else None
    own = RankScheduler(
        context, OWN_RANK if scheduler else args.ranks_address, args.rank, args.token
    )
    status = 0
    try:
        _serve(own, args)
        if scheduler is not None:
            scheduler.join()
    except Exception:
        log.exception("rank %d failed", args.rank)
        status = 1
    logging.shutdown()
    # Ends threads, sockets and process groups that the libraries still hold.
    os._exit(status)


def _read_args() -> RankArgs:
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    return msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=RankArgs)


def _end_with_parent(args: RankArgs) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    for _ in range(FILES + 1):  # Each file may have been created during the removal.
        shutil.rmtree(args.socket_folder, ignore_errors=True)
    os._exit(0)


def _start_scheduler(context: zmq.Context[zmq.Socket[bytes]], args: RankArgs) -> Scheduler:
    engine = args.engine
    gateway = ClientGateway(args.client_address, client_token(args.token))
    links = RankLinks(context, [OWN_RANK, args.ranks_address], engine.num_gpus, args.token)

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

    loras = LoraCache(engine.lora_dir, engine.max_loaded_loras, engine.num_gpus)
    scheduler = Scheduler(context, links, gateway, engine.step_timeout, make_policy, loras)
    scheduler.start()
    return scheduler


def _cost_file(args: RankArgs, loaded: RankLoaded) -> Path:
    """Costs, and what fits, are kept for each checkpoint on each kind of device."""
    assert loaded.model is not None
    ranks, threads = args.engine.num_gpus, os.environ.get("OMP_NUM_THREADS")
    hosts = "" if ranks == args.place.local_ranks else f" on {ranks // args.place.local_ranks}"
    machine = f"{loaded.device_name} {loaded.model.dtype} x{ranks} {threads}{hosts}"
    files = " ".join(f"{name}={file}" for name, file in sorted(args.component_files.items()))
    quantization = args.engine.quantization or ""
    told = f"{args.model_folder} {args.model_file} {files} {quantization} {machine}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Path(args.cache_folder) / "costs" / f"{digest}.json"


def _serve(own: RankScheduler, args: RankArgs) -> None:
    # Objects created by imports and loading are permanent: scanning them takes a fifth of the
    # start-up time, and occasionally half a second between two steps.
    gc.disable()
    # Imported here, so that rank 0's socket is open before torch is loaded.
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker

    try:
        worker = GPUWorker.load(args, own.report, own.store)
    except Exception as error:
        log.debug("loading failed", exc_info=error)
        own.report(RankLoaded(rank=args.rank, error=_reason(error)))
        # Rank 0 ends the engine: a rank that exits earlier would hide the reason.
        threading.Event().wait()
        return
    gc.freeze()
    gc.enable()
    own.report(_within_limits(worker.loaded(args.model_name, args.place.local_ranks), args.engine))
    own.run(worker)


def _within_limits(loaded: RankLoaded, engine: EngineArgs) -> RankLoaded:
    """Apply the engine's limits: a call whose outputs never fit into the queue together would be
    asked to retry forever, and one whose LoRAs never fit into memory together would wait
    forever."""
    assert loaded.model is not None
    limits = loaded.model.limits
    limits = msgspec.structs.replace(
        limits,
        max_outputs=min(limits.max_outputs, engine.max_queue_size),
        max_loras=min(limits.max_loras, engine.max_loaded_loras),
    )
    model = msgspec.structs.replace(loaded.model, limits=limits)
    return msgspec.structs.replace(loaded, model=model)


def _reason(error: Exception) -> WireError:
    if isinstance(error, MultimodalGenError):
        return WireError.of(error)
    log.error("loading failed", exc_info=error)
    return WireError.of(MultimodalGenError(f"loading failed: {type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
