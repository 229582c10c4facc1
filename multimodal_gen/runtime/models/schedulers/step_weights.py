"""Steps of a solver as weighted sums, so that requests with unlike solvers step as one tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

KEPT, NOISE, LATENTS, PREDICTION = range(4)
"""Columns of weights; the last two repeat for earlier evaluations."""
_LAGS = 8
"""Evaluations whose latents and predictions a step may use: more than any solver does."""
_LARGE = 100.0
"""Size of the numbers that a sum is tried with: beyond what clipping leaves as it is."""
_ROUNDING = 1e-4
"""Largest difference of a sum, relative to its terms."""
_MOST_FOUND = 256
"""Noise levels whose weights are kept for later requests."""


class TriedSolver(Protocol):
    """Part of a solver that is tried: see `Solver`."""

    num_evaluations: int

    def begin(self, i: int) -> None: ...

    def scale_input(self, latents: Tensor, i: int) -> Tensor: ...

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]: ...


class Draw(NamedTuple):
    """Noise that an evaluation draws from the request's generator."""

    times: int
    used: int
    """Number of the one, from 0, that the step adds."""
    dtype: torch.dtype | None
    """None: the prediction's."""


@dataclass(frozen=True)
class StepWeights:
    """Weights of evaluations `first` to E - 1, float64 on the CPU.

    Columns are what the solver kept, the noise, then latents and prediction of this evaluation, of
    the one before and so on.
    """

    first: int
    draws: Sequence[Draw | None]
    """For each evaluation."""
    scales: Tensor
    """[E - first], of the latents as the model's input."""
    latents: Tensor
    """[E - first, columns], of the next latents."""
    kept: Tensor
    """[E - first, columns], of what the solver keeps for the next evaluation: all 0 for most."""
    x0: Tensor
    """[E - first, columns], of the estimate of x0."""

    @property
    def history(self) -> int:
        """Number of earlier evaluations that steps use."""
        return (self.latents.shape[1] - LATENTS) // 2 - 1


TriedKind = Callable[[Any, "TrialNoise", torch.device], TriedSolver]
"""(scheduler, noise in place of the generator, device) -> the solver."""


def weights_of(scheduler: Any, first: int, kind: TriedKind) -> StepWeights | None:
    """Weights of the steps of a solver of this kind on a scheduler that has taken none yet.

    None if a step is no weighted sum, such as one that clips. A copy is tried with unit vectors,
    and what is found is kept for later requests with the same noise levels.
    """
    levels = (scheduler.timesteps, torch.as_tensor(getattr(scheduler, "sigmas", ())))
    told = (each.numpy().tobytes() for each in levels)
    key = (kind, type(scheduler), repr(scheduler.config), first, *told)
    if key not in _found:
        if len(_found) >= _MOST_FOUND:
            del _found[next(iter(_found))]
        _found[key] = _tried(copy.deepcopy(scheduler), first, kind)
    return _found[key]


_found: dict[object, StepWeights | None] = {}


def _tried(scheduler: Any, first: int, kind: TriedKind) -> StepWeights | None:
    noise = TrialNoise()
    solver = kind(scheduler, noise, torch.device("cpu"))
    solver.begin(first)
    trial = _Trial(solver, scheduler, noise, first)
    every = range(first, solver.num_evaluations)
    return trial.weights() if all(map(trial.evaluate, every)) else None


class _Input(NamedTuple):
    """One of the vectors of an evaluation."""

    column: int
    evaluation: int
    draw: int = 0


class _Basis:
    """Unit vectors [1, D, 1, 1]: entry 0 is a random number, each other one an input's own.

    What is no sum of inputs gives another number in entry 0 than the sum of theirs.
    """

    _SIZE = 1 + 6 * _LAGS

    def __init__(self) -> None:
        self._random = torch.Generator().manual_seed(0)
        self._inputs: dict[_Input, int] = {}
        self._numbers = [0.0] * self._SIZE

    def unit(self, of: _Input) -> Tensor:
        """Vector of an input, in place of the one `_LAGS` evaluations earlier."""
        before = of._replace(evaluation=of.evaluation - _LAGS)
        place = self._inputs.pop(before, len(self._inputs) + 1)
        self._inputs[of] = place
        self._numbers[place] = float(torch.randn((), generator=self._random)) * _LARGE
        vector = torch.zeros(self._SIZE, dtype=torch.float64)
        vector[0], vector[place] = self._numbers[place], 1
        return vector.view(1, -1, 1, 1)

    def weights(self, result: Tensor) -> dict[_Input, float] | None:
        """Weights of the inputs in a result; None if it is not their sum."""
        values = result.flatten().tolist()
        terms = [x * number for x, number in zip(values[1:], self._numbers[1:], strict=True)]
        if not abs(values[0] - sum(terms)) <= _ROUNDING * sum(map(abs, terms)):
            return None
        return {own: values[place] for own, place in self._inputs.items() if values[place]}


class TrialNoise:
    """Gives unit vectors for noise, and notes what is asked for."""

    def __init__(self) -> None:
        self.basis = _Basis()
        self.evaluation = 0
        self.asked: list[torch.dtype] = []

    def draw(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self.asked.append(dtype)
        own = _Input(NOISE, self.evaluation, len(self.asked) - 1)
        return self.basis.unit(own).view(*shape).to(dtype)


class _Trial:
    """The evaluations of one solver, whose generator is `noise`."""

    def __init__(self, solver: TriedSolver, scheduler: Any, noise: TrialNoise, first: int) -> None:
        self._solver, self._scheduler = solver, scheduler
        self._noise, self._first = noise, first
        self._rows: list[list[Mapping[int, float]]] = []
        self._scales: list[float] = []
        self._draws: list[Draw | None] = []

    def evaluate(self, i: int) -> bool:
        """Note the weights of evaluation i; False if there are none."""
        basis, latents = self._noise.basis, _Input(LATENTS, i)
        self._noise.evaluation, self._noise.asked = i, []
        seen = basis.unit(latents)
        scaled = basis.weights(self._solver.scale_input(seen, i))
        following, x0 = self._solver.step(basis.unit(_Input(PREDICTION, i)), i, seen)
        kept = getattr(self._scheduler, "last_sample", None)
        results = [following, following * 0 if kept is None else kept, x0]
        found = [weights for each in results if (weights := basis.weights(each)) is not None]
        if kept is not None:
            self._scheduler.last_sample = basis.unit(_Input(KEPT, i))
        noises = {own for weights in found for own in weights if own.column == NOISE}
        if scaled is None or not scaled.keys() <= {latents} or len(noises) > 1:
            return False
        if len(found) < len(results) or any(own.evaluation != i for own in noises):
            return False
        self._scales.append(scaled.get(latents, 0.0))
        self._note_draw(next((own.draw for own in noises), 0))
        self._rows.append([_by_column(weights, i) for weights in found])
        return True

    def _note_draw(self, used: int) -> None:
        asked = self._noise.asked
        dtype = asked[used] if asked and asked[used] is not torch.float64 else None
        self._draws.append(Draw(len(asked), used, dtype) if asked else None)

    def weights(self) -> StepWeights:
        last = max(column for rows in self._rows for row in rows for column in (*row, PREDICTION))
        columns = range(last + 2 - last % 2)  # a prediction's is odd
        latents, kept, x0 = (
            torch.tensor(
                [[row.get(at, 0.0) for at in columns] for row in rows], dtype=torch.float64
            )
            for rows in zip(*self._rows, strict=True)
        )
        scales = torch.tensor(self._scales, dtype=torch.float64)
        return StepWeights(self._first, self._draws, scales, latents, kept, x0)


def _by_column(weights: Mapping[_Input, float], i: int) -> dict[int, float]:
    """Weights of evaluation i by column; what was kept is always that of the one before."""
    lags = {own: i - own.evaluation for own in weights}
    return {
        own.column if own.column in (KEPT, NOISE) else own.column + 2 * lags[own]: weight
        for own, weight in weights.items()
    }
