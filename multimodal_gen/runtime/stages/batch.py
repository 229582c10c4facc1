"""Which rows a batch has, which of them are this rank's, and their conditioning."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import deal
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState


class Batch:
    """The rows of some requests: those of each request together, its branches in order.

    It does not keep the requests alive, and lets go of their conditioning when one of them ends.
    """

    def __init__(self, states: Sequence[RequestState], mesh: Mesh) -> None:
        self.rows_of = [len(state.conditioning) for state in states]
        self.rows = sum(self.rows_of)
        owners = [at for at, rows in enumerate(self.rows_of) for _ in range(rows)]
        share = deal(self.rows, mesh.cfg_size)[mesh.cfg_rank]
        here = owners[share.start : share.stop]
        self.local = [(at, here.count(at)) for at in dict.fromkeys(here)]
        """(request, how many of its rows are on this rank)"""
        self.params: list[SamplingParams] = [states[at].params for at in here]
        branches = [branch for state in states for branch in state.conditioning.values()]
        self.conditioning = _collate(branches[share.start : share.stop])
        self._requests = [weakref.ref(state, self._forget) for state in states]

    def is_of(self, states: Sequence[RequestState]) -> bool:
        """Whether these are its requests, in its order."""
        return len(states) == len(self._requests) and all(
            request() is state for request, state in zip(self._requests, states, strict=True)
        )

    def _forget(self, _: weakref.ref[RequestState]) -> None:
        self.conditioning = {}


def join(rows: Sequence[Tensor]) -> Tensor:
    """Tensors [1, ...] as one [R, ...]; timesteps of unlike dtypes are promoted."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


def _collate(branches: Sequence[Conditioning]) -> Conditioning:
    names = branches[0] if branches else ()
    return {name: join([branch[name] for branch in branches]) for name in names}
