"""Previews of a running generation."""

from __future__ import annotations

import logging

from multimodal_gen.messages.request import preview_stride
from multimodal_gen.runtime.stages.request_state import Estimate, RequestState
from multimodal_gen.runtime.stages.stage import Pipeline

log = logging.getLogger(__name__)


class Preview:
    """Called after each step of one request: shows the estimate of x0, at even intervals."""

    def __init__(self, pipeline: Pipeline, first: int, end: int) -> None:
        """The request's evaluations are those from `first` up to, not including, `end`."""
        self._pipeline = pipeline
        self._first = first
        self._evaluations = end - first
        self._every = preview_stride(self._evaluations)
        self._broken = False

    def is_due(self, state: RequestState, k: int) -> bool:
        """True if it shows one after the next `k` evaluations, or after one of them."""
        done = state.evaluation - self._first
        return any(self._shows(after) for after in range(done + 1, done + k + 1))

    def _shows(self, done: int) -> bool:
        """True if it shows one after so many evaluations of the request."""
        return not (self._broken or done % self._every or done >= self._evaluations)

    def __call__(self, state: RequestState, x0: Estimate) -> None:
        if not self._shows(state.evaluation - self._first):
            return
        try:
            state.preview = self._pipeline.preview(state.params, x0())
        except Exception:
            # Only rank 0 makes previews: raising an error would end the whole group over a
            # thumbnail.
            log.warning("request %s continues without previews", state.req.id, exc_info=True)
            self._broken = True
