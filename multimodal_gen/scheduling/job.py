"""A request as the policy sees it: units done, planned and left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import expected_steps, pixel_steps, pixels_of
from multimodal_gen.messages.plan import ENHANCED_TOKENS, BatchKey, Phase, Prepared
from multimodal_gen.messages.request import Req, preview_stride
from multimodal_gen.scheduling.cost_model import PROMPT, CostModel

LEVELS = {"low": 0, "normal": 1, "high": 2}
ABOVE_ALL = 3
"""One level above the highest priority."""
AGEING_S = 10.0
"""A job is aged after waiting this long per priority level below `ABOVE_ALL`."""

Geometry = tuple[int | None, ...]
"""Requests of equal geometry probably have equal batch keys."""
Order = tuple[float, float, int]
"""Sort key; smaller goes first."""


_NEVER = (-1, -1)
_TOKENS_A_PLAN = 8
"""At most: how long a token of a language model takes is not known before the first."""
_PIXELS_A_TOKEN = 256
"""In decode keys: 16 by 16, as in most models."""


class PassWork(NamedTuple):
    """Work of one pass. A request that is upscaled has another, and a model that enlarges is one
    without evaluations."""

    evaluations: int
    chunks: int
    key: BatchKey
    """Of its first evaluation."""
    pixels: int
    unit_key: BatchKey | None = None
    """Key of each unit of decoding, if that is not the VAE's."""

    @property
    def decode_key(self) -> BatchKey:
        """Key of each chunk."""
        if self.unit_key is not None:
            return self.unit_key
        return BatchKey(max(1, max(1, self.pixels // _PIXELS_A_TOKEN) // max(1, self.chunks)))


class Prices(NamedTuple):
    """Predicted seconds."""

    enhance: float = 0.0
    """Of a token."""
    encode: float = 0.0
    passes: Sequence[tuple[float, float]] = ()
    """Of an evaluation and of a chunk, for each pass."""


@dataclass
class GeometryEstimate:
    """Batch keys and decode work of one geometry; a guess until its first request is encoded."""

    key: BatchKey
    rows: int = 1
    chunks: int = 1
    version: int = 0
    """Incremented whenever it changes."""

    def learn(self, key: BatchKey, rows: int, chunks: int) -> bool:
        """Take over what is known of one request; returns whether that is new."""
        if (key, rows, chunks) == (self.key, self.rows, self.chunks):
            return False
        self.key, self.rows, self.chunks = key, rows, chunks
        self.version += 1
        return True


class SchedulerJob:
    """One queued or running request.

    `done` and `planned` count units per phase. `planned` is ahead of `done` by the work that is
    decided but not acknowledged; decisions only use `planned`.
    """

    def __init__(self, req: Req, number: int, now: float, estimate: GeometryEstimate) -> None:
        params = req.params
        self.id = req.id
        self._params = params
        self.number = number
        """Order of arrival."""
        self.owner = req.standing.owner
        self.weight = req.standing.weight
        self.precedes = req.standing.priorities and params.priority == "high"
        """It goes before the jobs of all owners."""
        self.deadline = None if params.deadline_s is None else now + params.deadline_s
        self.priority = LEVELS[params.priority]
        self.aged_at = now + AGEING_S * (ABOVE_ALL - self.priority)
        """Time at which it counts as aged, if it has not run by then."""
        self.steps = expected_steps(params)
        self.geometry = geometry_of(req)
        self._shows = req.previews
        self.size = pixel_steps(params)
        """Grows with the time it takes, without needing a cost model."""
        self.prepared: Prepared | None = None
        self.done = dict.fromkeys(Phase, 0)
        self.planned = dict.fromkeys(Phase, 0)
        self.ran = 0.0
        """Total seconds of work that it was part of."""
        self.alone = False
        """Set after a batch with it failed: it runs alone until it has succeeded once."""
        self.urgent = False
        """Close to its deadline: raised by one level."""
        self.batch_rows = 0
        """Rows of the last evaluation that it was part of."""
        self._pixels = pixels_of(params)
        self.estimate = estimate
        self._key = estimate.key
        self._passes = self._expected_passes(params)
        self._evaluations = self.steps
        self._key_ends: list[int] = []
        """Cumulative evaluation counts at the end of each run of equal keys."""
        self._prices = Prices()
        self._priced = _NEVER
        self._order: Order | None = None
        self._ordered = _NEVER
        self._tokens = ENHANCED_TOKENS if params.enhance_prompt else 0
        """Of the enhanced prompt, at most; 0 once it is known."""
        self.phase = self._next_phase()
        """Phase that can be planned next; None while unknown, or when everything is planned."""

    @property
    def key(self) -> BatchKey:
        """Batch key of the next evaluation to plan, or of the last one."""
        return self._key if self.prepared is not None else self.estimate.key

    @property
    def rows(self) -> int:
        """Rows that it takes in a batch."""
        return self.prepared.rows if self.prepared is not None else self.estimate.rows

    @property
    def _chunks(self) -> int:
        """Chunks of all passes."""
        return sum(each.chunks for each in self._passes)

    @property
    def decode_key(self) -> BatchKey:
        """Key of each chunk of the current pass."""
        return self._passes[self._current].decode_key

    @property
    def _current(self) -> int:
        """Number of the pass that is not planned to its end, or of the last one."""
        ends = accumulate(each.chunks for each in self._passes[:-1])
        return bisect_right([*ends], self.planned[Phase.DECODE])

    def _expected_passes(self, params: SamplingParams) -> list[PassWork]:
        """Passes of a request that is not encoded yet, by what its like has shown."""
        first, chunks = params.num_inference_steps or 1, self.estimate.chunks
        counts = [first, self.steps - first]
        return [
            PassWork(count, chunks, _scaled(self.estimate.key, pixels / self._pixels[0]), pixels)
            for count, pixels in zip(counts, self._pixels, strict=False)
        ]

    def prepare(self, prepared: Prepared) -> bool:
        """Take over what encoding it has shown; returns whether its like is predicted anew."""
        self.prepared = prepared
        self._evaluations = prepared.evaluations
        self.steps = self.steps if prepared.steps is None else prepared.steps
        self._key_ends = list(accumulate(count for _, count in prepared.batch_keys))
        self._passes = self._prepared_passes(prepared)
        self._priced = _NEVER
        self._order = None
        self.phase = self._next_phase()
        self._follow_key()
        return self.estimate.learn(self.key, self.rows, prepared.decode_chunks)

    def end_enhancing(self) -> None:
        """Go on to encode the prompt: it has no more tokens."""
        self._tokens = 0
        self._order = None
        self.phase = self._next_phase()

    def _prepared_passes(self, prepared: Prepared) -> list[PassWork]:
        keys, second = prepared.batch_keys, prepared.second
        first_key = keys[0][0] if keys else self.estimate.key
        later = 0 if second is None else second.evaluations
        first = self._pixels[0]
        passes = [PassWork(prepared.evaluations - later, prepared.decode_chunks, first_key, first)]
        if (enlarging := prepared.enlarging) is not None:
            passes.append(PassWork(0, enlarging.units, first_key, first, enlarging.key))
        if second is not None:
            passes.append(PassWork(later, second.decode_chunks, keys[-1][0], self._pixels[-1]))
        return passes

    def advance(self, phase: Phase, units: int) -> None:
        """Add to the planned units; a negative number takes back units that were not done."""
        self.planned[phase] += units
        self._order = None
        self.phase = self._next_phase()
        if phase is Phase.DENOISE:
            self._follow_key()

    def units_left(self, phase: Phase) -> int:
        """Units left to plan in this phase; for evaluations, those with the same batch key, up to
        the next one that shows a preview."""
        if phase is Phase.DENOISE:
            done = self.planned[phase]
            run = bisect_right(self._key_ends, done)
            end = self._key_ends[run] if run < len(self._key_ends) else self._evaluations
            stride = preview_stride(self._evaluations) if self._shows else self._evaluations
            return min(end - done, stride - done % stride)
        if phase is Phase.ENHANCE:
            return min(_TOKENS_A_PLAN, self._tokens - self.planned[phase])
        if phase is Phase.ENCODE:
            return 1 - self.planned[phase]
        end = sum(each.chunks for each in self._passes[: self._current + 1])
        return end - self.planned[phase]

    @property
    def level(self) -> int:
        return self.priority + self.urgent

    def aged(self, now: float) -> bool:
        """True if it has waited, without running, for too long."""
        return self.aged_at + self.ran <= now

    def set_urgent(self, urgent: bool) -> None:
        self.urgent = urgent
        self._order = None

    @property
    def evaluations_left(self) -> int:
        return self._evaluations - self.planned[Phase.DENOISE]

    @property
    def finished(self) -> bool:
        return self.prepared is not None and self.done[Phase.DECODE] >= self._chunks

    @property
    def current_phase(self) -> str:
        """Phase of the unit that is done next."""
        if self.done[Phase.ENHANCE] < self._tokens:
            return Phase.ENHANCE.value
        if self.prepared is None:
            return Phase.ENCODE.value
        denoising = self.done[Phase.DENOISE] < self._evaluations
        return Phase.DENOISE.value if denoising else Phase.DECODE.value

    def steps_done(self) -> int:
        """Evaluations done, converted to the requested steps."""
        return self.done[Phase.DENOISE] * self.steps // max(1, self._evaluations)

    # -- predicted seconds, if it had the device to itself

    def total(self, cost: CostModel) -> float:
        enhance, encode, passes = self._price(cost)
        works = zip(self._passes, passes, strict=True)
        return (
            self._tokens * enhance
            + encode
            + sum(
                work.evaluations * evaluation + work.chunks * chunk
                for work, (evaluation, chunk) in works
            )
        )

    def remaining(self, cost: CostModel) -> float:
        """Predicted seconds of the units not planned yet."""
        enhance, encode, passes = self._price(cost)
        seconds = max(0, self._tokens - self.planned[Phase.ENHANCE]) * enhance
        seconds += 0.0 if self.planned[Phase.ENCODE] else encode
        evaluated, decoded = self.planned[Phase.DENOISE], self.planned[Phase.DECODE]
        for work, (evaluation, chunk) in zip(self._passes, passes, strict=True):
            seconds += max(0, work.evaluations - evaluated) * evaluation
            seconds += max(0, work.chunks - decoded) * chunk
            evaluated = max(0, evaluated - work.evaluations)
            decoded = max(0, decoded - work.chunks)
        return seconds

    def order(self, cost: CostModel) -> Order:
        """Sort key: priority, then least remaining times total time, then arrival."""
        version = cost.version, self.estimate.version
        if self._order is None or self._ordered != version:
            self._ordered = version
            self._order = -self.level, self.remaining(cost) * self.total(cost), self.number
        return self._order

    def decode_left(self, cost: CostModel) -> float:
        chunk = self._price(cost).passes[self._current][1]
        return (self._chunks - self.planned[Phase.DECODE]) * chunk

    def _next_phase(self) -> Phase | None:
        if self.planned[Phase.ENHANCE] < self._tokens:
            return Phase.ENHANCE
        if not self.planned[Phase.ENCODE]:
            return Phase.ENCODE
        if self.prepared is None:
            return None
        evaluations = chunks = 0
        for work in self._passes:
            if self.planned[Phase.DENOISE] < (evaluations := evaluations + work.evaluations):
                # A second pass begins once the first is known to be decoded.
                return Phase.DENOISE if self.done[Phase.DECODE] >= chunks else None
            if self.planned[Phase.DECODE] < (chunks := chunks + work.chunks):
                return Phase.DECODE
        return None

    def _price(self, cost: CostModel) -> Prices:
        version = cost.version, self.estimate.version
        if self._priced != version:
            self._priced = version
            if self.prepared is None:
                self._passes = self._expected_passes(self._params)
            current = self._current
            keys = [self.key if i == current else each.key for i, each in enumerate(self._passes)]
            passes = [
                (
                    cost.seconds(Phase.DENOISE, key, self.rows),
                    cost.seconds(Phase.DECODE, work.decode_key, 1),
                )
                for key, work in zip(keys, self._passes, strict=True)
            ]
            self._prices = Prices(
                cost.seconds(Phase.ENHANCE, PROMPT, 1),
                cost.seconds(Phase.ENCODE, PROMPT, 1),
                passes,
            )
        return self._prices

    def _follow_key(self) -> None:
        assert self.prepared is not None
        keys = self.prepared.batch_keys
        run = bisect_right(self._key_ends, self.planned[Phase.DENOISE])
        key = keys[min(run, len(keys) - 1)][0] if keys else self.estimate.key
        if key != self._key:
            self._key = key
            self._priced = _NEVER
            self._order = None


def geometry_of(req: Req) -> Geometry:
    params = req.params
    return params.width, params.height, params.num_frames, params.max_sequence_length


def decode_key_of(req: Req) -> BatchKey:
    """Decode key of a request in one chunk."""
    return PassWork(1, 1, PROMPT, pixels_of(req.params)[0]).decode_key


def _scaled(key: BatchKey, factor: float) -> BatchKey:
    return key if factor == 1 else BatchKey(int(key.tokens * factor))
