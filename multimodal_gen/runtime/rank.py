"""One rank of an engine: `python -m multimodal_gen.runtime.rank`, with its arguments on stdin."""

from __future__ import annotations

import gc
import logging
import os
import threading

import msgspec
import zmq

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.plan import RankLoaded
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.messages.reply import WireError
from multimodal_gen.observability.logging import configure_logging
from multimodal_gen.runtime.child_process import read_arguments
from multimodal_gen.runtime.managers.rank_scheduler import RankScheduler

log = logging.getLogger(__name__)


def main() -> None:
    args = read_arguments(RankArgs)
    configure_logging(f"rank {args.rank}", args.engine.log_format)
    status = 0
    try:
        _serve(RankScheduler(zmq.Context(), args), args)
    except Exception:
        log.exception("rank %d failed", args.rank)
        status = 1
    logging.shutdown()
    # Ends threads, sockets and process groups that the libraries still hold.
    os._exit(status)


def _serve(own: RankScheduler, args: RankArgs) -> None:
    # Objects created by imports and loading are permanent: scanning them takes a fifth of the
    # start-up time, and occasionally half a second between two steps.
    gc.disable()
    # Imported here, so that the rank is heard of, and hears of an end, before torch is loaded.
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker

    try:
        worker = GPUWorker.load(args, own.report, own.store)
    except Exception as error:
        log.debug("loading failed", exc_info=error)
        own.report(RankLoaded(rank=args.rank, error=_reason(error)))
        # The Scheduler ends the engine: a rank that exits earlier would hide the reason.
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
        max_controls=min(limits.max_controls, engine.max_loaded_loras),
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
