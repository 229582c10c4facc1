"""Rows of a batch, this rank's share of them, and their conditioning."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from multimodal_gen.runtime.controls.control_rows import ControlRows, RowUses
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import deal
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class Batch:
    """Rows of a group of requests at an evaluation: request by request, branches in order.

    It holds no reference to the requests, and releases their conditioning when one of them ends.
    """

    def __init__(
        self,
        states: Sequence[RequestState],
        mesh: Mesh,
        join: Callable[[Sequence[Conditioning]], Conditioning],
    ) -> None:
        self._computed = [state.branches_at(state.evaluation) for state in states]
        self.rows_of = [len(branches) for branches in self._computed]
        self.rows = sum(self.rows_of)
        owners = [at for at, rows in enumerate(self.rows_of) for _ in range(rows)]
        share = deal(self.rows, mesh.cfg.size)[mesh.cfg.rank]
        self.owners = owners[share.start : share.stop]
        """Number of the request of each of this rank's rows."""
        rows = [
            (state.conditioning[branch], branch)
            for state, branches in zip(states, self._computed, strict=True)
            for branch in branches
        ][share.start : share.stop]
        self.conditioning = join([conditioning for conditioning, _ in rows])
        self.branches = [branch for _, branch in rows]
        """Guidance branches of this rank's rows."""
        self._controls: tuple[Sequence[RowUses], ControlRows | None] = ([], None)
        self._requests = [weakref.ref(state, self._forget) for state in states]

    def is_of(self, states: Sequence[RequestState], computed: Sequence[tuple[str, ...]]) -> bool:
        """True if these are its requests, in its order, and `computed` the branches that it has of
        each."""
        return self._computed == computed and [of() for of in self._requests] == [*states]

    def controls(
        self, uses: Sequence[RowUses], made: Callable[[Sequence[RowUses]], ControlRows | None]
    ) -> ControlRows | None:
        """Controls of an evaluation: usually those of the one before."""
        if uses != self._controls[0]:
            self._controls = ([], None)  # frees the old ones before creating the new ones
            self._controls = (uses, made(uses))
        return self._controls[1]

    def _forget(self, _: weakref.ref[RequestState]) -> None:
        self.conditioning = {}
        self._controls = ([], None)
