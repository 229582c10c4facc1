"""Steps of the requests of a batch: of all together where their solvers allow it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.stages.request_state import Estimate, Magnitude, RequestState
from multimodal_gen.runtime.stages.rows import join
from multimodal_gen.runtime.stages.weighted_steps import WeightedSteps


class Steps:
    """Everything between two evaluations for requests that stay together.

    Requests whose solvers have weights are one tensor; each other one has its solver step. It holds
    no reference to the requests, and releases their tensors when one of them ends.
    """

    def __init__(self, states: Sequence[RequestState]) -> None:
        self._requests = [weakref.ref(state, self._forget) for state in states]
        self._starts = [state.evaluation for state in states]
        self._taken = 0
        solvers = [state.running()[0] for state in states]
        self._counted = [(solver.order, solver.num_evaluations) for solver in solvers]
        """Evaluations of each request, in a step and in all."""
        self._apart = [at for at, solver in enumerate(solvers) if solver.weights is None]
        self._together = [at for at, solver in enumerate(solvers) if solver.weights is not None]
        own = [states[at] for at in self._together]
        self._weighted = WeightedSteps(own) if own else None
        left = min(state.evaluations_left for state in states)
        self._timesteps = torch.cat(
            [
                solver.timesteps[start : start + left].unsqueeze(1)
                for solver, start in zip(solvers, self._starts, strict=True)
            ],
            dim=1,
        )  # [evaluations, n, ...]
        self._owners: Sequence[int] = range(len(states))
        self._rows: Tensor | None = None
        self._of_rows = self._timesteps.unbind()

    def are_of(self, states: Sequence[RequestState]) -> bool:
        """True if these are its requests, in its order, and where it left them."""
        if len(states) != len(self._requests):
            return False
        if [request() for request in self._requests] != [*states]:
            return False
        places = [state.evaluation - self._taken for state in states]
        return places == self._starts

    def inputs(
        self, states: Sequence[RequestState], owners: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The model's latents [R, ...] and timesteps [R, ...], if row r is of request
        `owners[r]`."""
        if owners != self._owners:
            self._deal(owners)
        latents = self._scaled(states)
        if self._rows is not None:
            latents = latents.index_select(0, self._rows)
        return latents, self._of_rows[self._taken]

    def _deal(self, owners: Sequence[int]) -> None:
        every = list(range(len(self._starts)))
        device = self._timesteps.device
        self._rows = None if owners == every else tensor_of(owners, device)
        of_rows = self._timesteps
        if self._rows is not None:
            of_rows = of_rows.index_select(1, self._rows)
        self._owners, self._of_rows = owners, of_rows.unbind()

    def _scaled(self, states: Sequence[RequestState]) -> Tensor:
        if self._weighted is not None and not self._apart:
            return self._weighted.scaled(states)
        scaled: dict[int, Tensor] = {}
        if self._weighted is not None:
            own = self._weighted.scaled([states[at] for at in self._together])
            scaled |= zip(self._together, own.split(1), strict=True)
        for at in self._apart:
            solver, latents = states[at].running()
            scaled[at] = solver.scale_input(latents, states[at].evaluation)
        return join([scaled[at] for at in range(len(states))])

    def take(self, states: Sequence[RequestState], predictions: Tensor) -> list[Estimate]:
        """Take the step of each request by its guided prediction, [n, ...].

        If it raises, no request has taken its step, and it may be tried again.
        """
        if self._weighted is not None and not self._apart:
            taken = self._weighted.take(states, predictions)
            self._taken += 1
            return taken
        estimates: dict[int, Estimate] = {}
        for at in self._apart:
            _step_apart(states[at], predictions[at : at + 1])
        if self._weighted is not None:
            own = [states[at] for at in self._together]
            given = join([predictions[at : at + 1] for at in self._together])
            estimates |= zip(self._together, self._weighted.take(own, given), strict=True)
        for at in self._apart:  # can't fail: either all requests step, or none
            estimates[at] = _commit(states[at])
        self._taken += 1
        return [estimates[at] for at in range(len(states))]

    def measure(self, states: Sequence[RequestState]) -> None:
        """Note the largest value of each request's latents, to find the step at which it fails."""
        latents = (
            self._weighted.latents(states)
            if self._weighted is not None and not self._apart
            else join([state.running()[1] for state in states])
        )
        dims = tuple(range(1, latents.dim()))
        largest = latents.abs().amax(dims).float()  # a norm takes ten times as long on a CPU
        for at, (state, (order, total)) in enumerate(zip(states, self._counted, strict=True)):
            place = f"step {-(-state.evaluation // order)} of {-(-total // order)}"
            state.magnitudes.append(Magnitude(place, largest, at))

    def _forget(self, _: weakref.ref[RequestState]) -> None:
        self._weighted, self._requests = None, []


def _step_apart(state: RequestState, prediction: Tensor) -> None:
    if state.stepped is None:  # else an earlier try got this far; solvers may step only once
        solver, latents = state.running()
        state.stepped = solver.step(prediction, state.evaluation, latents)


def _commit(state: RequestState) -> Estimate:
    assert state.stepped is not None
    state.latents, x0 = state.stepped
    state.stepped = None
    state.evaluation += 1
    return partial(_known, x0)


def _known(x0: Tensor) -> Tensor:
    return x0
