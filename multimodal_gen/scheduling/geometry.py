"""Requests that are alike, and what the first of them has shown of the others' work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multimodal_gen.messages.plan import BatchKey, EvaluationRun
from multimodal_gen.messages.request import Req

Geometry = tuple[int | None, ...]
"""Requests of equal geometry probably have equal batch keys."""
WorkKind = tuple[object, ...]
"""Requests of one kind probably have as many rows in their evaluations, too."""

_OF_ROWS = ("guidance_start", "guidance_stop", "guidance_method", "zero_init_steps", "quality")
"""Parameters that say how many rows the evaluations have."""


@dataclass
class GeometryEstimate:
    """Batch keys and decode work of requests that are alike; a guess until the first is encoded."""

    key: BatchKey
    rows: int = 1
    """The most rows of an evaluation."""
    chunks: int = 1
    share: float = 1.0
    """Rows of all evaluations, as a part of what they were if all had the most rows."""
    version: int = 0
    """Incremented whenever it changes."""

    def learn(self, runs: Sequence[EvaluationRun], chunks: int) -> bool:
        """Take over what is known of one request; returns whether that is new."""
        rows = most_rows(runs)
        computed = sum(run.count * run.rows for run in runs)
        share = computed / (rows * sum(run.count for run in runs)) if computed else 1.0
        key = runs[0].key if runs else self.key
        learned = key, rows, chunks, share
        if learned == (self.key, self.rows, self.chunks, self.share):
            return False
        self.key, self.rows, self.chunks, self.share = learned
        self.version += 1
        return True


def geometry_of(req: Req) -> Geometry:
    params = req.params
    return params.width, params.height, params.num_frames, params.max_sequence_length


def work_kind(req: Req) -> WorkKind:
    """Everything that says how long an evaluation takes: one entry for each reason."""
    return geometry_of(req), *(getattr(req.params, name) for name in _OF_ROWS)


def most_rows(runs: Sequence[EvaluationRun]) -> int:
    """The most rows of an evaluation; at least 1."""
    return max((run.rows for run in runs), default=0) or 1
