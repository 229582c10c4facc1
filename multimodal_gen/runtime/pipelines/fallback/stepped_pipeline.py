"""Base of pipelines whose loop runs inside the library: one request an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.vaes.shared_decoding import SharedDecoding
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.fallback.library_parts import load_part
from multimodal_gen.runtime.pipelines.fallback.library_vae import LibraryVAE
from multimodal_gen.runtime.pipelines.fallback.previews import LibraryPreviews
from multimodal_gen.runtime.pipelines.fallback.solver import LibrarySolver
from multimodal_gen.runtime.pipelines.fallback.truncation import cuts_heard
from multimodal_gen.runtime.pipelines.guidance import NoGuidance
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_TOKEN_SIDE = 16
"""Pixels per token and side, as in most models: for the first cost estimate."""


class SteppedPipeline(ComposedPipeline):
    """A pipeline whose requests each run inside a call of the library, step by step.

    A subclass sets a `LibrarySolver` when it prepares a request.
    """

    supports_lora = False  # the library calls its modules without rows
    supports_ranks = False
    guidance = NoGuidance()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._vae = LibraryVAE(self.components.get("vae"))
        self._previews = LibraryPreviews(self.components.get("vae"), self.context)

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Empty: the class uses its scheduler in its own way."""
        return ()

    @property
    def noise_schedules(self) -> tuple[str, ...]:
        """Empty, like `schedulers`."""
        return ()

    @property
    def schedule_parameters(self) -> tuple[str, ...]:
        return ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.unpacked

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        return load_part(checkpoint, name, context)

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Components of these kinds, then all others: the call may use any component at any
        time."""
        named = super().components_of_kind(*kinds)
        return (*named, *(name for name in self.components if name not in named))

    @classmethod
    def needed_together(cls, names: Sequence[str]) -> list[tuple[Phase, tuple[str, ...]]]:
        return [(phase, tuple(names)) for phase in Phase if phase is not Phase.ENHANCE]

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return {}

    def _start(self, state: RequestState, solver: LibrarySolver) -> None:
        """Run the call up to its loop; warns of prompts that the library cuts."""
        params = state.params
        with (
            cuts_heard(params.prompt, params.negative_prompt or "") as cuts,
            self._vae.tiled(params),
        ):
            solver.start()
        state.warnings += cuts

    def combined(self, state: RequestState) -> Sequence[tuple[str, ...]]:
        """Empty: guidance is the library's."""
        return ()

    def without_effect(self, state: RequestState) -> list[RequestWarning]:
        """Nothing is known: the library's call takes the parameters."""
        return []

    def batch_key(self, state: RequestState, evaluation: int) -> BatchKey:
        """A unique key: each request is evaluated alone."""
        params = state.params
        assert params.width is not None
        assert params.height is not None
        tokens = params.width * params.height * (params.num_frames or 1) // _TOKEN_SIDE**2
        return BatchKey(max(1, tokens), state.req.id)

    def predict(self, rows: Rows) -> Tensor:
        """Latents after one more step of the only request's call."""
        (state,) = rows.states
        return solver_of(state).advance(rows.latents)

    def decode_chunks(self, params: SamplingParams) -> int:
        return 1

    def decoded_by_all(self, params: SamplingParams) -> bool:
        """False: the library's call decodes."""
        return False

    def decoded_at_once(self, params: SamplingParams) -> int:
        return 1

    def shared_decoding(self, state: RequestState) -> SharedDecoding | None:
        """None, as `decoded_by_all` says."""
        return None

    def limit_decoding(self, room: int) -> None:
        self._vae.room = room

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        (state,) = states
        with self._vae.tiled(state.params):
            made = solver_of(state).finish()
        state.audio, state.audio_rate = made.sound, made.rate or self._sound_rate
        return made.pixels

    @property
    def _sound_rate(self) -> int:
        config = getattr(self.components.get("vocoder"), "config", {})
        return int(config.get("output_sampling_rate") or config.get("sampling_rate") or 0)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        return self._previews(params, x0)


def solver_of(state: RequestState) -> LibrarySolver:
    assert isinstance(state.solver, LibrarySolver)
    return state.solver
