"""How fast pictures are made, one at a time and many at once, against diffusers."""

from __future__ import annotations

from multimodal_gen.benchmarks.report import Figure, ratio
from multimodal_gen.benchmarks.session import Session

CLIENTS = 8
ROUNDS = 3
"""Pictures that each client asks for, and calls that diffusers makes for as many."""


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
            "seconds for one picture, engine over diffusers",
            ours,
            theirs,
            target=1.0,
        )
    ]


def concurrent(session: Session) -> list[Figure]:
    """Pictures a second of clients in a closed loop."""
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
    what = f"pictures a second, {CLIENTS} clients of the engine over diffusers "
    return [
        ratio(
            "concurrent/batch",
            f"{what}with lists of {CLIENTS} prompts",
            engine,
            batch,
            target=0.9,
            bound="at least",
        ),
        ratio(
            "concurrent/single", f"{what}one by one", engine, single, target=1.3, bound="at least"
        ),
    ]
