"""Measures the time between two evaluations of the model, inside a rank."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from multimodal_gen.benchmarks.device.clock import DeviceClock
from multimodal_gen.benchmarks.protocol import Gap
from multimodal_gen.runtime.stages.rows import Rows


@dataclass
class _Evaluation:
    rows: list[int]
    """Number of the request per row: equal while the same requests stay together."""
    plan: int
    started: Any
    ended: Any = None


class GapRecorder:
    """Wraps the calls of one worker. On a GPU the marks are events in its stream, so that a gap is
    the time the device waited; on a CPU they are clock times."""

    def __init__(self, device: torch.device) -> None:
        self._clock = DeviceClock(device)
        self._evaluations: list[_Evaluation] = []
        self._plan = 0

    def around_plan(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self._plan += 1
            return execute(*args)

        return counted

    def around_predict(self, predict: Callable[[Rows], Any]) -> Callable[[Rows], Any]:
        def timed(rows: Rows) -> Any:
            evaluation = _Evaluation(
                [id(each) for each in rows.states], self._plan, self._clock.mark()
            )
            prediction = predict(rows)
            evaluation.ended = self._clock.mark()
            self._evaluations.append(evaluation)
            return prediction

        return timed

    def gaps(self) -> list[Gap]:
        """Gaps between evaluations of the same batch: guidance, solvers and everything else."""
        self._clock.wait()
        return [
            self._gap(before, after)
            for before, after in itertools.pairwise(self._evaluations)
            if before.rows == after.rows
        ]

    def _gap(self, before: _Evaluation, after: _Evaluation) -> Gap:
        return Gap(
            requests=len(set(after.rows)),
            across_plans=before.plan != after.plan,
            seconds=self._clock.between(before.ended, after.started),
        )
