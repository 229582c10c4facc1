"""A request as the policy sees it: units done, planned and left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from multimodal_gen.configs.second_pass import expected_steps, pixel_steps, pixels_of
from multimodal_gen.messages.plan import (
    ENHANCED_TOKENS,
    BatchKey,
    EvaluationRun,
    Phase,
    Prepared,
)
from multimodal_gen.messages.request import Req, preview_stride
from multimodal_gen.scheduling.cost_model import PROMPT, CostModel
from multimodal_gen.scheduling.geometry import GeometryEstimate, geometry_of, most_rows

LEVELS = {"low": 0, "normal": 1, "high": 2}
ABOVE_ALL = 3
"""One level above the highest priority."""
AGEING_S = 10.0
"""A job is aged after waiting this long per priority level below `ABOVE_ALL`."""

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
    """Seconds of a token."""
    encode: float = 0.0
    runs: Sequence[float] = ()
    """Seconds of an evaluation of each run."""
    later: Sequence[float] = ()
    """Seconds of all evaluations after each run."""
    chunks: Sequence[float] = ()
    """Seconds of a chunk of each pass."""


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
        self._in_batch: tuple[int, int] | None = None
        self.runner = req.runner
        """Runner of its evaluations; None until it is begun, unless it was begun elsewhere."""
        self._pixels = pixels_of(params)
        self.estimate = estimate
        self._evaluations = self.steps
        self._runs: Sequence[EvaluationRun] = ()
        self._most_rows = 1
        self._ends: list[int] = []
        """Cumulative evaluation counts at the end of each run."""
        self._expect()
        self._prices = Prices()
        self._priced = _NEVER
        self._order: Order | None = None
        self._ordered = _NEVER
        self._tokens = ENHANCED_TOKENS if params.enhance_prompt else 0
        """Of the enhanced prompt, at most; 0 once it is known."""
        self.phase = self._next_phase()
        """Phase that can be planned next; None while unknown, or when everything is planned."""

    @property
    def _run(self) -> EvaluationRun:
        """Run of the next evaluation to plan, or the last one."""
        at = min(bisect_right(self._ends, self.planned[Phase.DENOISE]), len(self._runs) - 1)
        return self._runs[at] if self._runs else self._guessed(1)

    @property
    def key(self) -> BatchKey:
        """Batch key of the next evaluation to plan, or of the last one."""
        return self._run.key if self.prepared is not None else self.estimate.key

    @property
    def rows(self) -> int:
        """Rows of the next evaluation to plan, or of the last one; 0: without the denoiser."""
        return self._run.rows if self.prepared is not None else self.estimate.rows

    @property
    def most_rows(self) -> int:
        """The most rows that it takes in a batch."""
        return self.estimate.rows if self.prepared is None else self._most_rows

    @property
    def in_batch(self) -> tuple[int, int]:
        """Its rows, and those of the whole batch, in the last evaluation that it was part of."""
        return self._in_batch or (self.most_rows, self.most_rows)

    def joined(self, rows: int) -> None:
        """Note that its next evaluation is one of so many rows."""
        if rows:
            self._in_batch = self.rows, rows

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

    def _expect(self) -> None:
        """Guess its work before it is encoded, by what its like has shown."""
        first, chunks = self._params.num_inference_steps or 1, self.estimate.chunks
        counts = [first, self.steps - first]
        expected = [*zip(counts, self._pixels, strict=False)]
        self._passes = [PassWork(count, chunks, pixels) for count, pixels in expected]
        self._runs = [self._guessed(count, p / self._pixels[0]) for count, p in expected]
        self._ends = list(accumulate(run.count for run in self._runs))

    def _guessed(self, count: int, factor: float = 1.0) -> EvaluationRun:
        """Evaluations with so many times the tokens of its like."""
        return EvaluationRun(_scaled(self.estimate.key, factor), count, self.estimate.rows)

    def prepare(self, prepared: Prepared) -> bool:
        """Take over what encoding it has shown; returns whether its like is predicted anew."""
        self.prepared = prepared
        self._evaluations = prepared.evaluations
        self.steps = self.steps if prepared.steps is None else prepared.steps
        self._runs = prepared.batch_keys
        self._most_rows = most_rows(self._runs)
        self._ends = list(accumulate(run.count for run in self._runs))
        self._passes = self._prepared_passes(prepared)
        self._priced = _NEVER
        self._order = None
        self.phase = self._next_phase()
        return self.estimate.learn(self._runs, prepared.decode_chunks)

    def end_enhancing(self) -> None:
        """Go on to encode the prompt: it has no more tokens."""
        self._tokens = 0
        self._order = None
        self.phase = self._next_phase()

    def _prepared_passes(self, prepared: Prepared) -> list[PassWork]:
        second, first = prepared.second, self._pixels[0]
        later = 0 if second is None else second.evaluations
        passes = [PassWork(prepared.evaluations - later, prepared.decode_chunks, first)]
        if (enlarging := prepared.enlarging) is not None:
            passes.append(PassWork(0, enlarging.units, first, enlarging.key))
        if second is not None:
            passes.append(PassWork(later, second.decode_chunks, self._pixels[-1]))
        return passes

    def advance(self, phase: Phase, units: int) -> None:
        """Add to the planned units; a negative number takes back units that were not done."""
        self.planned[phase] += units
        self._order = None
        self.phase = self._next_phase()

    def units_left(self, phase: Phase) -> int:
        """Units left to plan in this phase; for evaluations, those of the same run, up to the
        next one that shows a preview."""
        if phase is Phase.DENOISE:
            done = self.planned[phase]
            run = bisect_right(self._ends, done)
            end = self._ends[run] if run < len(self._ends) else self._evaluations
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
        prices = self._price(cost)
        evaluations = [
            run.count * price for run, price in zip(self._runs, prices.runs, strict=True)
        ]
        return (
            self._tokens * prices.enhance
            + prices.encode
            + sum(evaluations)
            + sum(w.chunks * price for w, price in zip(self._passes, prices.chunks, strict=True))
        )

    def remaining(self, cost: CostModel) -> float:
        """Predicted seconds of the units not planned yet."""
        prices = self._price(cost)
        seconds = max(0, self._tokens - self.planned[Phase.ENHANCE]) * prices.enhance
        seconds += 0.0 if self.planned[Phase.ENCODE] else prices.encode
        seconds += self.evaluating(cost)
        decoded = self.planned[Phase.DECODE]
        for work, chunk in zip(self._passes, prices.chunks, strict=True):
            seconds += max(0, work.chunks - decoded) * chunk
            decoded = max(0, decoded - work.chunks)
        return seconds

    def evaluating(self, cost: CostModel) -> float:
        """Predicted seconds of the evaluations not planned yet."""
        prices, planned = self._price(cost), self.planned[Phase.DENOISE]
        run = bisect_right(self._ends, planned)
        if run == len(self._ends):
            return 0.0
        return (self._ends[run] - planned) * prices.runs[run] + prices.later[run]

    def order(self, cost: CostModel) -> Order:
        """Sort key: priority, then least remaining times total time, then arrival."""
        version = cost.version, self.estimate.version
        if self._order is None or self._ordered != version:
            self._ordered = version
            self._order = -self.level, self.remaining(cost) * self.total(cost), self.number
        return self._order

    def decode_left(self, cost: CostModel) -> float:
        chunk = self._price(cost).chunks[self._current]
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
                self._expect()
            share = 1.0 if self.prepared is not None else self.estimate.share
            runs = [share * cost.seconds(Phase.DENOISE, r.key, r.rows) for r in self._runs]
            totals = [run.count * price for run, price in zip(self._runs, runs, strict=True)]
            later = [*accumulate(reversed(totals[1:]), initial=0.0)]
            self._prices = Prices(
                cost.seconds(Phase.ENHANCE, PROMPT, 1),
                cost.seconds(Phase.ENCODE, PROMPT, 1),
                runs,
                later[::-1],
                [cost.seconds(Phase.DECODE, work.decode_key, 1) for work in self._passes],
            )
        return self._prices


def decode_key_of(req: Req) -> BatchKey:
    """Decode key of a request in one chunk."""
    return PassWork(1, 1, pixels_of(req.params)[0]).decode_key


def _scaled(key: BatchKey, factor: float) -> BatchKey:
    return key if factor == 1 else BatchKey(int(key.tokens * factor))
