"""Measures the latency of a short job queued behind a long one."""

from __future__ import annotations

import time
from contextlib import suppress

from multimodal_gen.benchmarks.report import Figure, ratio
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.client.request_handle import RequestHandle, Update
from multimodal_gen.errors import Cancelled

LONG = 20
"""Steps of the long job, as a multiple of the model's default."""
SHORT = 5
"""The short job has the model's default steps divided by this."""
WATCHED_S = 0.4
"""Seconds for which the long job runs alone, to measure its step time."""


def short_job(session: Session) -> list[Figure]:
    """Latency behind a long job of the same size, and behind one of four times the pixels."""
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
        f"latency of {short_steps} steps queued behind {long_steps} at "
        f"{size['width']}x{size['height']} (minus one step of the long job), "
        "relative to running alone",
        waiting,
        alone,
        target=1.5,
    )


def _step_seconds(handle: RequestHandle) -> float:
    """Step time from the progress of a job that runs alone."""
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
