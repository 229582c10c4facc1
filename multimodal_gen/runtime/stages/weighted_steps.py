"""Steps of several requests as weighted sums of one tensor of state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.schedulers.step_weights import (
    KEPT,
    LATENTS,
    NOISE,
    PREDICTION,
    StepWeights,
)
from multimodal_gen.runtime.stages.request_state import Estimate, RequestState
from multimodal_gen.runtime.stages.rows import join

_NEXT, _KEPT, _X0 = range(3)
"""Results of a step."""


class WeightedSteps:
    """Latents [n, ...] of requests that stay together, and what their solvers remember.

    A row is computed element by element in one order of operations, whatever the other rows are.
    Each request's own tensors are rows of these: it may leave, or replace its latents.
    """

    def __init__(self, states: Sequence[RequestState]) -> None:
        weights = [_weights(state) for state in states]
        latents = [state.running()[1] for state in states]
        self._taken = 0
        self._own = [2 * each.history for each in weights]
        """Earlier latents and predictions that each request needs."""
        table = _table(states, weights)
        self._terms = [_terms(table[:, result]) for result in range(3)]
        self._takes_noise = any(NOISE in terms for terms in self._terms)
        scales = table[:, 3, 0]
        self._scaled = not bool((scales == 1).all())
        device, ones = latents[0].device, [1] * (latents[0].dim() - 1)
        self._weights = copied(table, device).view(*table.shape, *ones).unbind()
        """Of each evaluation, [4, columns, n, ...]."""
        self._rows = latents
        self._joined = join(latents)
        self._history = [
            join([_earlier(state, at) for state in states]) for at in range(max(self._own))
        ]
        self._kept = join([_kept_of(state) for state in states])

    def latents(self, states: Sequence[RequestState]) -> Tensor:
        """[n, ...]: also after some of them were replaced."""
        if not all(map(is_, [state.latents for state in states], self._rows)):
            self._rows = [state.running()[1] for state in states]
            self._joined = join(self._rows)
        return self._joined

    def scaled(self, states: Sequence[RequestState]) -> Tensor:
        """Latents as the model's input."""
        latents = self.latents(states)
        if not self._scaled:
            return latents
        return (self._weights[self._taken][3, 0] * latents).to(latents.dtype)

    def take(self, states: Sequence[RequestState], predictions: Tensor) -> list[Estimate]:
        """Take one step of all requests, or raise and leave them as they are."""
        at, latents = self._taken, self.latents(states)
        given = dict(enumerate([latents, predictions, *self._history], LATENTS))
        given[KEPT] = self._kept
        if (noise := self._noise(states, predictions)) is not None:
            given[NOISE] = noise
        following = self._sum(_NEXT, at, given).to(predictions.dtype)
        kept = self._sum(_KEPT, at, given) if self._terms[_KEPT] else self._kept
        self._remember(states, latents, predictions, kept)
        self._joined, self._rows = following, list(following.chunk(len(states)))
        for state, row in zip(states, self._rows, strict=True):
            state.latents = row
            state.evaluation += 1
        self._taken += 1
        return [partial(self._estimate, at, given, row) for row in range(len(states))]

    def _noise(self, states: Sequence[RequestState], predictions: Tensor) -> Tensor | None:
        if not self._takes_noise:
            return None
        shape = (1, *predictions.shape[1:])
        drawn = [s.running()[0].noise.at(s.evaluation, shape, predictions.dtype) for s in states]
        if all(noise is None for noise in drawn):
            return None
        absent = torch.zeros_like(predictions[:1])
        return join([absent if noise is None else noise for noise in drawn])

    def _sum(self, result: int, at: int, given: Mapping[int, Tensor]) -> Tensor:
        weights = self._weights[at][result].unbind()
        total: Tensor | None = None
        for column, is_one in self._terms[result].items():
            if column not in given:
                continue
            term = given[column].float() if is_one else weights[column] * given[column]
            total = term if total is None else total + term
        assert total is not None
        return total

    def _estimate(self, at: int, given: Mapping[int, Tensor], row: int) -> Tensor:
        return self._sum(_X0, at, given)[row : row + 1].to(given[PREDICTION].dtype)

    def _remember(
        self, states: Sequence[RequestState], latents: Tensor, predictions: Tensor, kept: Tensor
    ) -> None:
        self._kept = kept
        if self._terms[_KEPT]:
            for state, row in zip(states, kept.split(1), strict=True):
                state.kept = row
        if not self._history:
            return
        self._history = [latents, predictions, *self._history][: len(self._history)]
        rows = zip(states, self._own, self._rows, predictions.split(1), strict=True)
        for state, most, x, prediction in rows:
            state.history = (x, prediction, *state.history)[:most]


def _weights(state: RequestState) -> StepWeights:
    weights = state.running()[0].weights
    assert weights is not None
    return weights


def _earlier(state: RequestState, at: int) -> Tensor:
    """Entry of its history; if it has none yet, anything: its weight is 0."""
    return state.history[at] if at < len(state.history) else state.running()[1]


def _kept_of(state: RequestState) -> Tensor:
    return state.running()[1] if state.kept is None else state.kept


def _table(states: Sequence[RequestState], weights: Sequence[StepWeights]) -> Tensor:
    """Weights [evaluations left of all, 4, columns, n] in float32: by result, then in the first
    column those of the model's input."""
    left = min(state.evaluations_left for state in states)
    columns = max(each.latents.shape[1] for each in weights)
    table = torch.zeros(left, 4, columns, len(states))
    for row, (state, own) in enumerate(zip(states, weights, strict=True)):
        start = state.evaluation - own.first
        now = slice(start, start + left)
        for result, each in enumerate((own.latents, own.kept, own.x0)):
            table[:, result, : each.shape[1], row] = each[now]
        table[:, 3, 0, row] = own.scales[now]
    return table


def _terms(weights: Tensor) -> dict[int, bool]:
    """Columns of weights [evaluations, columns, n] that any step uses, in the order of summation,
    each with whether its weight is always 1."""
    last = [KEPT, NOISE]
    order = [column for column in range(weights.shape[1]) if column not in last] + last
    used, ones = weights.any(dim=2).any(dim=0).tolist(), (weights == 1).flatten(2)
    always = ones.all(dim=2).all(dim=0).tolist()
    return {column: always[column] for column in order if used[column]}
