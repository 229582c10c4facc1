"""Measures image throughput and latency against diffusers, single and concurrent."""

from __future__ import annotations

from multimodal_gen.benchmarks.report import Figure, ratio
from multimodal_gen.benchmarks.session import Session

CLIENTS = 8
ROUNDS = 3
"""Images that each client requests, and diffusers calls for the same number of images."""


def one_picture(session: Session) -> list[Figure]:
    workload = session.workload
    ours, theirs = session.alternate(
        "one picture",
        lambda: session.engine.seconds(workload.request()),
        lambda: session.diffusers.seconds([workload.request()]),
    )
    return [
        ratio(
            "one_picture",
            "seconds per single image, engine relative to diffusers",
            ours,
            theirs,
            target=1.0,
        )
    ]


def concurrent(session: Session) -> list[Figure]:
    """Images per second of clients in a closed loop."""
    workload = session.workload
    pictures = CLIENTS * ROUNDS

    def ours() -> float:
        return pictures / session.engine.seconds_together(workload.requests(pictures), CLIENTS)

    def one_by_one() -> float:
        return CLIENTS / session.diffusers.seconds(workload.requests(CLIENTS))

    def as_batch() -> float:
        calls = [workload.requests(CLIENTS) for _ in range(ROUNDS)]
        return pictures / sum(
            session.diffusers.seconds(requests, as_batch=True) for requests in calls
        )

    engine, batch, single = session.alternate("concurrent", ours, as_batch, one_by_one)
    what = f"images per second, {CLIENTS} clients of the engine relative to diffusers "
    return [
        ratio(
            "concurrent/batch",
            f"{what}with batches of {CLIENTS} prompts",
            engine,
            batch,
            target=0.9,
            bound="at least",
        ),
        ratio(
            "concurrent/single", f"{what}one by one", engine, single, target=1.3, bound="at least"
        ),
    ]
