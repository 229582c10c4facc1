"""The solver of a request that runs as one call of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.pipelines.fallback.call import CallResult
from multimodal_gen.runtime.pipelines.fallback.stepped_call import SteppedCall


class LibrarySolver(Solver):
    """Stands for the solver inside the library's call: a prediction is already its step."""

    def __init__(
        self,
        begin: Callable[[], SteppedCall],
        params: SamplingParams,
        named_in: Callable[[str], str | None],
    ) -> None:
        """`begin` starts the call. It yields the number of steps before the first one; then, after
        each step, the latents and the estimate of x0 (None if unknown); finally a `CallResult`.
        `named_in` finds the sampling parameter that a complaint of the library is about."""
        self.needed: Sequence[str] = ()
        """Components that its next step uses, if they are known one by one."""
        self._begin = begin
        self._named_in = named_in
        self._params = params
        self._call: SteppedCall | None = None
        self._x0: Tensor | None = None
        self.num_evaluations = 0
        self.timesteps = torch.empty(0)

    @property
    def order(self) -> int:
        """1: only the library knows which of its callbacks belong to one step."""
        return 1

    def start(self) -> None:
        """Run up to the first step. Raises InvalidRequest if the library's own check fails."""
        self._call = self._begin()
        try:
            self.num_evaluations = int(self._call.resume())
        except ValueError as error:
            field = self._named_in(str(error))
            if field is None:
                raise
            raise InvalidRequest(field, getattr(self._params, field), str(error)) from error
        self.timesteps = torch.zeros(self.num_evaluations)

    def advance(self, latents: Tensor) -> Tensor:
        """Latents after the next step; unchanged if the call made fewer steps than announced."""
        assert self._call is not None
        after = self._call.resume()
        if self._call.ended:
            return latents
        stepped: Tensor
        stepped, self._x0 = after
        return stepped

    def finish(self) -> CallResult:
        """Run to the end and return the results."""
        assert self._call is not None
        made = self._call.resume()
        while not self._call.ended:
            made = self._call.resume()
        assert isinstance(made, CallResult)
        return made

    def weigh(self, first: int) -> None:
        """No effect: the library steps."""

    def scale_input(self, latents: Tensor, i: int) -> Tensor:
        return latents

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction, which is the step, and the estimate of x0: empty if it is not known."""
        return prediction, torch.empty(0) if self._x0 is None else self._x0
