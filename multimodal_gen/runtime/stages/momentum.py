"""A sum over the evaluations of a request, in which earlier ones count less."""

from __future__ import annotations

from torch import Tensor


class Momentum:
    """Sum that is multiplied by a weight before each addition; an evaluation that is repeated
    counts once."""

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._sum: Tensor | None = None
        self._evaluation: int | None = None

    def add(self, term: Tensor, weight: float, evaluation: int) -> Tensor:
        """Return `term` plus `weight` times the sum of the evaluations before this one."""
        if evaluation != self._evaluation:
            self._before, self._evaluation = self._sum, evaluation
        self._sum = term if self._before is None else term + weight * self._before
        return self._sum
