"""Schedules of step caches: evaluations that are computed, and how the others follow from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, get_args

import msgspec

Quality = Literal["exact", "high", "fast"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
"""From the most exact to the fastest."""
FEWEST_EVALUATIONS = 9
"""Passes of fewer evaluations are computed in full: distilled models change too much in each."""


class StepCache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule by which predictions are extrapolated in time from those of earlier evaluations.

    The polynomial of `order` goes through the newest computed predictions; `slope` damps its
    change since the newest one: 0 repeats that one, 1 trusts the polynomial in full. Repeating lags
    behind, and a full slope carries on the noise of the last difference.
    """

    computed: tuple[int, ...]
    """Rising, from 0: evaluations, of a pass of `steps`, that are computed. For another number of
    evaluations they are places in time: see `computes`."""
    guided: tuple[int, ...] | None = None
    """Those of them that compute all guidance branches; the others compute only the first branch,
    and extrapolate the differences of the others from it. None: all."""
    steps: int = 20
    order: int = 1
    slope: float = 0.5
    psnr: tuple[float, float] | None = None
    """Mean and worst PSNR in dB against exact pictures, for which it was chosen; None: it was not
    calibrated."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that can't be followed."""
        for chosen in (self.computed, self.guided or (0,)):
            rising = all(a < b for a, b in pairwise(chosen))
            if not chosen or chosen[0] != 0 or chosen[-1] >= self.steps or not rising:
                raise ValueError("evaluations must rise from 0, and be fewer than the steps")
        if not set(self.guided or ()) <= set(self.computed):
            raise ValueError("guided must be among computed")
        if not 0 <= self.order <= 2 or not 0 <= self.slope <= 1:
            raise ValueError("order must be 0, 1 or 2, and slope 0 to 1")

    def computes(self, evaluations: int) -> list[bool]:
        """Tell for each of so many evaluations whether it is computed.

        Fewer evaluations than `steps` are computed at the same places in time, so that no gap is
        longer; of more evaluations the same share is computed at each place, as whoever asks for
        more steps wants a closer result.
        """
        return _passes(self.computed, self.steps, evaluations)

    def guides(self, evaluations: int) -> list[bool]:
        """Tell for each evaluation whether it computes all branches, if it is computed."""
        chosen = self.computed if self.guided is None else self.guided
        return _passes(chosen, self.steps, evaluations)

    def weights(self, times: list[float], time: float) -> list[float]:
        """Weights of the predictions at `times`, the newest last, that give the one at `time`.

        The times differ from each other. Their number is the polynomial's order + 1 at most.
        """
        weights = [self.slope * each for each in lagrange(times, time)]
        weights[-1] += 1 - self.slope
        return weights


StepCaches = Mapping[str, StepCache]
"""Rules by quality: `high` and `fast`."""
CALIBRATED = dict[Literal["high", "fast"], StepCache]
"""Form of a checkpoint's step_caches.json, which its calibration writes."""

UNCALIBRATED: StepCaches = {
    "high": StepCache(computed=(0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 19)),
    "fast": StepCache(computed=(0, 1, 2, 3, 6, 9, 12, 15, 18)),
}
"""Rules of families whose trained models were not measured: cautious, and without a promise."""


def at_least(quality: Quality) -> tuple[Quality, ...]:
    """Return the qualities that are no lower."""
    return QUALITIES[: QUALITIES.index(quality) + 1]


def lagrange(times: list[float], time: float) -> list[float]:
    """Values at `time` of the polynomials that are 1 at one of the times and 0 at the others."""
    values = []
    for own in times:
        value = 1.0
        for other in times:
            if other != own:
                value *= (time - other) / (own - other)
        values.append(value)
    return values


def _passes(chosen: tuple[int, ...], steps: int, evaluations: int) -> list[bool]:
    """Tell for each evaluation whether the number of chosen places grows there."""
    scale = max(1.0, evaluations / steps)
    counts = [
        int(_count(chosen, steps, i * steps / evaluations) * scale + 1e-6)
        for i in range(evaluations)
    ]
    return [i == 0 or counts[i] > counts[i - 1] for i in range(evaluations)]


def _count(chosen: tuple[int, ...], steps: int, place: float) -> float:
    """Chosen places before `place`; between two of them it grows evenly."""
    at = bisect_right(chosen, place + 1e-9) - 1
    after = chosen[at + 1] if at + 1 < len(chosen) else steps
    return at + (place - chosen[at]) / (after - chosen[at])
