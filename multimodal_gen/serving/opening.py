"""Opens the storage that a server's arguments name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.serving.fronts.runner import JobStores
from multimodal_gen.serving.storage.data_folder import usable
from multimodal_gen.serving.storage.ledger import Ledger
from multimodal_gen.serving.storage.results import Results, ResultStore, secret_of
from multimodal_gen.serving.storage.spool import PictureStore, Spool
from multimodal_gen.serving.storage.sqlite_ledger import SqliteLedger
from multimodal_gen.serving.storage.steady_clock import SteadyClock, SystemClock
from multimodal_gen.serving.webhooks import Webhooks

if TYPE_CHECKING:
    from multimodal_gen.serving.storage.postgres.ledger import PostgresLedger


def open_folder(folder: Path, args: JobArgs) -> tuple[SqliteLedger, JobStores]:
    """Open the ledger in `folder`, which exists, and the results there or in `args.results`.
    Raises InvalidRequest."""
    with usable(folder):
        clock = SteadyClock(folder / "clock")
    ledger = SqliteLedger(folder / "jobs.sqlite")
    with usable(folder):
        if args.results is not None:
            return ledger, _with_objects(args, ledger, secret_of(folder), clock)
        results, spool = _results_in(folder, args, clock, ledger), Spool(folder)
    return ledger, JobStores(ledger, results, spool, clock, _webhooks(args, ledger))


def open_shared(args: JobArgs) -> tuple[PostgresLedger, JobStores]:
    """Open a ledger and results that other servers use too. Raises InvalidRequest."""
    assert args.ledger is not None
    _require("psycopg", "ledger", "postgres")
    from multimodal_gen.serving.storage.postgres.ledger import PostgresLedger

    ledger = PostgresLedger(args.ledger)
    return ledger, _with_objects(args, ledger, ledger.secret("links"), SystemClock())


def _results_in(folder: Path, args: JobArgs, clock: SteadyClock, ledger: Ledger) -> ResultStore:
    return Results(
        folder,
        ttl_s=args.result_ttl,
        quota_gb=args.result_quota_gb,
        clock=clock.now,
        jump=clock.jump,
        starred=ledger.starred,
    )


def _with_objects(
    args: JobArgs, ledger: Ledger, secret: bytes, clock: SteadyClock | SystemClock
) -> JobStores:
    assert args.results is not None
    _require("obstore", "results", "objects")
    from multimodal_gen.serving.storage.object_results import ObjectResults
    from multimodal_gen.serving.storage.object_spool import ObjectSpool
    from multimodal_gen.serving.storage.objects import Objects

    objects = Objects.at(args.results)
    results: ResultStore = ObjectResults(
        objects,
        secret,
        ttl_s=args.result_ttl,
        quota_gb=args.result_quota_gb,
        starred=ledger.starred,
    )
    spool: PictureStore = ObjectSpool(objects)
    return JobStores(ledger, results, spool, clock, _webhooks(args, ledger))


def _webhooks(args: JobArgs, ledger: Ledger) -> Webhooks | None:
    if args.webhook_url is None:
        return None
    return Webhooks(ledger, args.webhook_url, args.webhook_secret or "")


def _require(module: str, field: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        allowed = f"needs an extra: pip install 'multimodal-gen[{extra}]'"
        raise InvalidRequest(field, "…", allowed)
