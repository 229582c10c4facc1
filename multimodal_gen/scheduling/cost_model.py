"""Predicts time and memory of a batch: by formula, then from measurements, kept between runs."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from multimodal_gen.messages.plan import BatchKey, Phase, PhaseSwitch
from multimodal_gen.scheduling.curve import WINDOW, Curve
from multimodal_gen.scheduling.memory_estimate import MemoryEstimate
from multimodal_gen.scheduling.row_limits import MORE_MEMORY, RowLimits

log = logging.getLogger(__name__)

FLOPS_PER_S = {"cuda": 1e14, "cpu": 5e10}
FIXED_S = {"cuda": 5e-3, "cpu": 2e-3}
"""Fixed time per evaluation, whatever its size: launching kernels."""
STEP_S = 1e-3
"""Seconds of an evaluation without rows: a step of solvers, about whose time little depends."""
MAX_KEYS = 512
"""Maximum number of keys, which depend on user input; the least recently used is dropped."""
RECENT_RATIOS = 9
MEASURED_DOUBT, UNMEASURED_DOUBT = 2.0, 10.0
"""A prediction may be too long by this factor if only other keys, or none, were measured."""
PROMPT = BatchKey(256)
"""Key for encoding any prompt: the time hardly depends on the text, which is mostly padding."""
VERSION = 2
"""Version of the cache file; files of other versions are ignored."""


class _KeptCurve(msgspec.Struct):
    phase: Phase
    key: BatchKey
    seconds: dict[int, list[float]]


class _Header(msgspec.Struct):
    """Fields common to all versions of the file."""

    version: int


class _Kept(_Header):
    """Contents of the file in the cache folder."""

    curves: list[_KeptCurve]
    ratios: dict[Phase, list[float]]
    row_limits: list[tuple[BatchKey, int]]
    memory_bytes: int = 0
    """Free memory where the row limits were learned."""


class CostModel:
    """Predicts seconds and memory, and is corrected by every plan that ran.

    The formula is 2 * parameters * tokens floating-point operations per row over an assumed device
    speed, plus a fixed time (Kaplan et al. 2020, section 2.1, for the 2 * parameters).
    """

    def __init__(
        self,
        *,
        parameters: int,
        memory_bytes: int,
        device: str,
        path: Path | None,
        switches: Sequence[PhaseSwitch] = (),
    ) -> None:
        kind = device.partition(":")[0]
        self._fixed_s = FIXED_S.get(kind, FIXED_S["cpu"])
        self._token_s = 2 * parameters / FLOPS_PER_S.get(kind, FLOPS_PER_S["cpu"])
        self.parameters = max(1, parameters)
        # A transformer's width grows with the root of its parameters.
        self._memory = MemoryEstimate(4 * math.sqrt(parameters), MAX_KEYS)
        self._memory_bytes = memory_bytes
        self._switch_s = {(each.before, each.after): each.seconds for each in switches}
        self._path = path
        self._curves: dict[tuple[Phase, BatchKey], Curve] = {}
        self._ratios: dict[Phase, deque[float]] = {}
        self._row_limits = RowLimits(MAX_KEYS)
        self._predicted: dict[tuple[Phase, BatchKey, int], float] = {}
        self.version = 0
        """Incremented whenever predictions change."""
        self._load()

    # -- time

    def seconds(self, phase: Phase, key: BatchKey, n: int) -> float:
        """Predicted seconds per unit: an evaluation of n rows, n prompts, or a chunk of each of n
        requests."""
        if not n:
            return STEP_S
        found = self._predicted.get((phase, key, n))
        if found is None:
            if phase is Phase.DENOISE:
                found = self._curve_seconds(phase, key, n)
            else:
                found = n * self._curve_seconds(phase, key, 1)
            self._predicted[phase, key, n] = found
        return found

    def switch_s(self, before: Phase, after: Phase) -> float:
        """Seconds to bring the weights for one phase to the device, where another's were used."""
        return self._switch_s.get((before, after), 0.0)

    @property
    def changes_s(self) -> float:
        """Seconds that a request waits for weights if nothing shares its phases."""
        return sum(max(self.switch_s(before, after) for before in Phase) for after in Phase)

    def observe(
        self, phase: Phase, key: BatchKey, n: int, seconds_per_unit: float, peak_bytes: int = 0
    ) -> None:
        """Record the measured time of a unit for n rows or requests, and the memory that it added
        (0 if unknown)."""
        if n < 1 or not 0 < seconds_per_unit < math.inf:
            return
        self._predicted.clear()
        if phase is not Phase.DENOISE:
            n, seconds_per_unit = 1, seconds_per_unit / n
        else:
            self._row_limits.succeeded(key, n)
            self._memory.observe(key, n, peak_bytes)
        curve = self._curves.pop((phase, key), None) or self._new_curve(phase, key)
        self._curves[phase, key] = curve
        if len(self._curves) > MAX_KEYS:
            del self._curves[next(iter(self._curves))]
        before = self._ratio(phase)
        ratios = self._ratios.setdefault(phase, deque(maxlen=RECENT_RATIOS))
        ratios.append(seconds_per_unit / self._formula(phase, key, n))
        recalibrated = abs(self._ratio(phase) / before - 1) > 0.05
        if curve.observe(n, seconds_per_unit) or recalibrated:
            self.version += 1

    def measured_rows(self, key: BatchKey) -> list[int]:
        """Numbers of rows whose evaluations have been measured of late."""
        curve = self._curves.get((Phase.DENOISE, key))
        return [] if curve is None else list(curve.windows)

    def doubt(self, key: BatchKey) -> float:
        """Factor by which a prediction for evaluations of this key may be too long."""
        if (Phase.DENOISE, key) in self._curves:
            return 1.0
        return MEASURED_DOUBT if Phase.DENOISE in self._ratios else UNMEASURED_DOUBT

    def least_seconds(self, tokens: int, rows: int) -> float:
        """The least seconds that an evaluation of so many tokens may take, whatever its key.

        Known from the nearest number of tokens that was measured more than once, as a first call
        may be slow; further away, the prediction may be too long by as much as `doubt` says.
        """
        curves = {
            key.tokens: curve
            for (phase, key), curve in self._curves.items()
            if phase is Phase.DENOISE and max(map(len, curve.windows.values())) > 1
        }
        expected = self._full_formula(tokens, rows)
        if not curves:
            return expected / UNMEASURED_DOUBT
        near = min(curves, key=lambda known: abs(math.log(max(1, known) / tokens)))
        doubt = 1.0 if near / 2 <= tokens <= 2 * near else MEASURED_DOUBT
        return curves[near].seconds(rows) * expected / self._full_formula(near, rows) / doubt

    def _full_formula(self, tokens: int, rows: int) -> float:
        """Like `_formula`, with attention: it adds tokens / (6 * width) to a transformer's work,
        whose parameters are 12 * depth * width squared; depth is about a 80th of the width."""
        width = math.cbrt(80 * self.parameters / 12)
        return self._fixed_s + rows * self._token_s * tokens * (1 + tokens / (6 * width))

    def _curve_seconds(self, phase: Phase, key: BatchKey, n: int) -> float:
        curve = self._curves.get((phase, key))
        if curve is None:
            return self._ratio(phase) * self._formula(phase, key, n)
        return curve.seconds(n)

    def _new_curve(
        self, phase: Phase, key: BatchKey, windows: dict[int, list[float]] | None = None
    ) -> Curve:
        return Curve(lambda n: self._formula(phase, key, n), windows)

    def _formula(self, phase: Phase, key: BatchKey, n: int) -> float:
        row_s = self._token_s * key.tokens
        # Encoders and VAEs are smaller than a denoiser; the first run of one measures by how much.
        return self._fixed_s + n * row_s if phase is Phase.DENOISE else self._fixed_s + row_s / 2

    def _ratio(self, phase: Phase) -> float:
        """Measured over predicted time: corrects keys that never ran by those that did."""
        ratios = self._ratios.get(phase) or self._ratios.get(Phase.DENOISE)
        return sorted(ratios)[(len(ratios) - 1) // 2] if ratios else 1.0

    # -- memory

    def fits(self, key: BatchKey, rows: int) -> bool:
        """True if this many rows may fit. If memory is unknown (0): until an allocation failed."""
        if not self._row_limits.allow(key, rows):
            return False
        return not self._memory_bytes or self._memory.bytes(key, rows) <= self._memory_bytes

    def untried_bytes(self, key: BatchKey, rows: int) -> int:
        """Bytes that an evaluation may need; 0 once one of as many rows has run."""
        return 0 if self._memory.has_run(key, rows) else int(self._memory.bytes(key, rows))

    def out_of_memory(self, key: BatchKey, rows: int) -> None:
        """Halve the row limit for this key, after an allocation for this many rows failed."""
        self._row_limits.failed(key, rows)

    # -- persistence

    def save(self) -> None:
        """Write the measurements atomically: readers see the old file or the new one."""
        if self._path is None:
            return
        kept = _Kept(
            version=VERSION,
            curves=[_KeptCurve(p, key, curve.windows) for (p, key), curve in self._curves.items()],
            ratios={phase: list(ratios) for phase, ratios in self._ratios.items()},
            row_limits=self._row_limits.kept(),
            memory_bytes=self._memory_bytes,
        )
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(kept))
            part.replace(self._path)
        except OSError as error:
            log.warning("cost model not saved to %s: %s", self._path, error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
            version = msgspec.json.decode(content, type=_Header).version
            if version != VERSION:
                log.info(
                    "cost model in %s has version %d, starting with an empty one",
                    self._path,
                    version,
                )
                return
            kept = msgspec.json.decode(content, type=_Kept)
            if not _sane(kept):
                raise ValueError("values out of range")
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            log.warning(
                "cost model in %s can't be used, starting with an empty one: %s", self._path, error
            )
            return
        for c in kept.curves[-MAX_KEYS:]:
            self._curves[c.phase, c.key] = self._new_curve(c.phase, c.key, c.seconds)
        self._ratios = {p: deque(r, maxlen=RECENT_RATIOS) for p, r in kept.ratios.items() if r}
        if self._memory_bytes <= kept.memory_bytes * MORE_MEMORY:
            self._row_limits.restore(kept.row_limits)


def _sane(kept: _Kept) -> bool:
    windows = [window for curve in kept.curves for window in curve.seconds.values()]
    values = [value for window in [*windows, *kept.ratios.values()] for value in window]
    keys = [curve.key for curve in kept.curves] + [key for key, _ in kept.row_limits]
    rows = [n for curve in kept.curves for n in curve.seconds] + [n for _, n in kept.row_limits]
    return (
        all(0 < len(window) <= WINDOW for window in windows)
        and all(0 < value < math.inf for value in values)
        and all(n >= 1 for n in rows)
        and all(key.tokens >= 0 for key in keys)
    )
