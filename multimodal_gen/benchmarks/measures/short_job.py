"""How long a short job takes that arrives behind a long one."""

from __future__ import annotations

import time
from contextlib import suppress

from multimodal_gen.benchmarks.report import Figure, ratio
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.client.request_handle import RequestHandle, Update
from multimodal_gen.errors import Cancelled

LONG = 20
"""Times the model's steps that the long job has."""
SHORT = 5
"""Part of the model's steps that the short one has."""
WATCHED_S = 0.4
"""How long the long job is watched, alone, for the time of its step."""


def short_job(session: Session) -> list[Figure]:
    """Behind a long job of the same size, and behind one of four times the pixels."""
    defaults, limits = session.model.defaults, session.model.limits
    double = {"width": 2 * defaults.width, "height": 2 * defaults.height}
    sizes = {"same_size": {"width": defaults.width, "height": defaults.height}}
    if double["width"] * double["height"] <= limits.max_pixels:
        sizes["larger"] = double
    return [_behind(session, name, size) for name, size in sizes.items()]


def _behind(session: Session, name: str, size: dict[str, int]) -> Figure:
    defaults = session.model.defaults
    short_steps = max(1, defaults.num_inference_steps // SHORT)
    long_steps = min(session.model.limits.max_steps, defaults.num_inference_steps * LONG)

    def short() -> float:
        return session.engine.seconds(session.workload.request(num_inference_steps=short_steps))

    def behind_long() -> float:
        long = session.workload.request(**size, num_inference_steps=long_steps)
        handle = session.engine.client.submit(long.req)
        step = _step_seconds(handle)
        latency = short()
        _end(handle)
        return latency - step

    waiting, alone = session.alternate(f"short job, {name}", behind_long, short)
    return ratio(
        f"short_job/{name}",
        f"latency of {short_steps} steps behind {long_steps} at {size['width']}x{size['height']},"
        " less one step of the long job, over latency alone",
        waiting,
        alone,
        target=1.5,
    )


def _step_seconds(handle: RequestHandle) -> float:
    """The time of a step, as told by the progress of a job that is alone."""
    first: tuple[int, float] | None = None
    for event in handle:
        now = time.perf_counter()
        if not isinstance(event, Update) or event.step == 0:
            continue
        if first is None:
            first = (event.step, now)
        elif event.step > first[0] and now - first[1] >= WATCHED_S:
            return (now - first[1]) / (event.step - first[0])
    raise RuntimeError("the long job ended before the short one was sent")


def _end(handle: RequestHandle) -> None:
    handle.cancel()
    with suppress(Cancelled):
        handle.result()
