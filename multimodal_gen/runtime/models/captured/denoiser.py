"""Runs evaluations that are met again as graphs of a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial

from torch import Tensor

from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.models.captured.graph_cache import CapturedEvaluation, GraphCache
from multimodal_gen.runtime.models.captured.inputs import ROWS, EvaluationInputs
from multimodal_gen.runtime.models.denoiser import Denoiser, Static, Tensors

log = logging.getLogger(__name__)


class CapturedDenoiser:
    """Captures what another denoiser does, when it meets a signature for the second time.

    Whether an evaluation is replayed or not, the other denoiser's work is the same: it has the
    same number of rows, padding included, and contiguous inputs. So no result depends on which
    graphs there are.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        name: str,
        cache: GraphCache,
        permits: Callable[[LoraRows], bool],
    ) -> None:
        """`name` tells the denoisers that share a cache apart; `permits` returns true for LoRAs
        that may be captured."""
        self._denoiser = denoiser
        self._name = name
        self._cache = cache
        self._permits = permits

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        given = EvaluationInputs(tensors, static, lora)
        if not self._can_capture(given):
            return self._denoiser(tensors, static, lora)
        captured = self._captured((self._name, given.signature()), given)
        if captured is None:
            return self._denoiser(*given.copied().arguments)[: given.rows]
        captured.inputs.fill(given)
        captured.graph.replay()
        return captured.graph.output[: given.rows].clone()

    def _can_capture(self, given: EvaluationInputs) -> bool:
        """True for inputs that are small enough, and LoRAs that permit it: it does not depend on
        what was captured before."""
        permitted = given.lora is None or self._permits(given.lora)
        return permitted and given.rows <= ROWS[-1] and self._cache.holds(given.size)

    def _captured(self, signature: Hashable, given: EvaluationInputs) -> CapturedEvaluation | None:
        """The graph for a signature, which is captured if it was met before."""
        cache = self._cache
        found = cache.find(signature)
        if found is not None or cache.failed or not cache.was_met(signature):
            return found
        cache.make_room(given.size)
        try:
            inputs = given.copied()
            graph = cache.backend.capture(partial(self._denoiser, *inputs.arguments))
        except RuntimeError as error:  # an allocator's among others
            log.warning("evaluations run without graphs, as one could not be captured: %s", error)
            cache.fail()
            return None
        captured = CapturedEvaluation(inputs, graph)
        cache.add(signature, captured)
        return captured
