"""Step caches: predictions that are extrapolated in time from earlier ones of the same request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_gen.configs.step_cache import StepCache


class PlannedEvaluation(NamedTuple):
    """Branches that one evaluation of a request computes."""

    wanted: tuple[str, ...]
    """Guidance branches whose predictions are combined; (): no prediction is needed."""
    computed: tuple[str, ...]
    """Those of them that are computed, the first ones; the denoiser runs for none if ()."""
    begins: bool = False
    """True if earlier predictions tell nothing about it."""

    @property
    def is_extrapolated(self) -> bool:
        """True if the denoiser does not run, and earlier predictions take its place."""
        return bool(self.wanted) and not self.computed

    @property
    def is_complete(self) -> bool:
        """True if nothing of it is extrapolated."""
        return self.computed == self.wanted


def plan_evaluations(
    rule: StepCache,
    evaluations: int,
    first: int,
    wanted: Callable[[int], tuple[str, ...]],
    kind: Callable[[int], object],
) -> list[PlannedEvaluation]:
    """Decide what each evaluation from `first` on computes; those before it are not run.

    Predictions are extrapolated only between evaluations of equal branches and equal `kind`: the
    expert and the adapters that apply. The first ones of each such stretch are computed, as many
    as the rule's polynomial needs.
    """
    computes, guides = rule.computes(evaluations), rule.guides(evaluations)
    plan = [PlannedEvaluation(wanted(i), wanted(i)) for i in range(first)]
    stretch, since = None, 0
    for i in range(first, evaluations):
        branches = wanted(i)
        now = (branches, kind(i))
        stretch, since = now, since + 1 if now == stretch else 0
        chosen = branches if guides[i] else branches[:1]
        computed = branches if since <= rule.order else chosen if computes[i] else ()
        plan.append(PlannedEvaluation(branches, computed, begins=since == 0))
    return plan


class PredictionCache:
    """Newest predictions of one pass of a request, whole on every rank.

    It holds as many as the rule's polynomial has coefficients, and none once nothing is left to
    extrapolate. All of it follows from the request alone: it is the same on all ranks, beside any
    neighbours and after a replay.
    """

    def __init__(
        self, rule: StepCache, times: Sequence[float], plan: Sequence[PlannedEvaluation]
    ) -> None:
        """`times` are the timesteps of the evaluations, on the host."""
        self._rule = rule
        self._times = times
        self._plan = plan
        self._nodes: list[tuple[float, Tensor]] = []
        self._last = max((i for i, each in enumerate(plan) if not each.is_complete), default=-1)

    @property
    def plan(self) -> Sequence[PlannedEvaluation]:
        """Plans of all evaluations."""
        return self._plan

    @property
    def predictions(self) -> list[Tensor]:
        """Those that it holds, each [branches, ...]."""
        return [prediction for _, prediction in self._nodes]

    def complete(self, i: int, computed: Tensor) -> Tensor:
        """Predictions [branches, ...] that evaluation i combines, of those that it computes.

        A second call for an evaluation, after a failure elsewhere in its batch, gives the same.
        """
        planned, time = self._plan[i], self._times[i]
        if planned.begins or i > self._last:
            self._nodes = []
        if not planned.wanted:
            return computed
        if not planned.computed:
            return self._extrapolated(time)
        if not planned.is_complete:
            # Differences from the first branch change more slowly than the branches themselves.
            known = self._extrapolated(time)
            computed = torch.cat((computed, known[1:] + (computed - known[:1])))
        if i < self._last:
            self._keep(time, computed)
        return computed

    def _keep(self, time: float, prediction: Tensor) -> None:
        """Solvers of two evaluations a step may evaluate twice at a time: the later one counts."""
        older = [node for node in self._nodes if node[0] != time]
        self._nodes = [*older, (time, prediction)][-1 - self._rule.order :]

    def _extrapolated(self, time: float) -> Tensor:
        """Weighted sum of what it holds: one operation for a polynomial of order 1."""
        weights = self._rule.weights([node[0] for node in self._nodes], time)
        *earlier, newest = self.predictions
        moves = [each for each in zip(earlier, weights, strict=False) if each[1]]
        if not moves:
            return newest
        (first, weight), *others = moves
        total = torch.lerp(newest, first, weight)  # the weights add up to 1
        for prediction, weight in others:
            total.add_(prediction - newest, alpha=weight)
        return total
