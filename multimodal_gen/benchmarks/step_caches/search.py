"""Searches for the rule with the fewest computed evaluations that keeps results close enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from multimodal_gen.benchmarks.step_caches.trials import Closeness
from multimodal_gen.configs.step_cache import StepCache

Try = Callable[[StepCache], Closeness]
_SLOPES = (0.0, 0.3, 0.5, 0.7, 1.0)
_HEAD = 3
"""Evaluations computed at the start of a first guess: there predictions change the most."""
_FEWEST = 4


def cheapest(
    try_rule: Try, steps: int, bars: Sequence[Closeness]
) -> list[tuple[StepCache, Closeness] | None]:
    """The rule with the fewest computed evaluations for each of the bars, which fall; None if even
    half of the evaluations miss it.

    Starts from an even half, and takes the evaluation away that matters least, again and again.
    """
    found: list[tuple[StepCache, Closeness] | None] = [None] * len(bars)
    best = _polished(try_rule, _best(try_rule, _guesses(steps, steps // 2)))
    while best[1].reaches(bars[-1]):
        found = [
            best if best[1].reaches(bar) else old for bar, old in zip(bars, found, strict=True)
        ]
        if len(best[0].computed) == _FEWEST:
            break
        best = _polished(try_rule, _best(try_rule, _shorter(best[0])))
    return found


def _polished(try_rule: Try, found: tuple[StepCache, Closeness]) -> tuple[StepCache, Closeness]:
    """Move the evaluations of a rule, and turn its slope, while that makes it better."""
    for neighbours in (_moved, _turned, _moved):
        better = _best(try_rule, neighbours(found[0]))
        if _score(better[1]) > _score(found[1]):
            found = better
    return found


def _best(try_rule: Try, rules: Iterable[StepCache]) -> tuple[StepCache, Closeness]:
    tried = [(rule, try_rule(rule)) for rule in rules]
    return max(tried, key=lambda each: _score(each[1]))


def _score(closeness: Closeness) -> float:
    return closeness.mean + closeness.worst / 2


def _guesses(steps: int, computed: int) -> Iterator[StepCache]:
    """Even rules after a start that is computed, with each slope; and a polynomial of order 2."""
    head = min(_HEAD, computed - 1)
    gap = (steps - head) / (computed - head)
    places = (*range(head), *(round(head - 1 + gap * (i + 1)) for i in range(computed - head)))
    even = StepCache(computed=tuple(min(each, steps - 1) for each in places), steps=steps)
    for slope in _SLOPES:
        yield replace(even, slope=slope)
    yield replace(even, order=2)


def _shorter(rule: StepCache) -> Iterator[StepCache]:
    """The rule without one of its evaluations, but for the first ones, which its polynomial
    needs."""
    for at in range(1 + rule.order, len(rule.computed)):
        yield replace(rule, computed=(*rule.computed[:at], *rule.computed[at + 1 :]))


def _moved(rule: StepCache) -> Iterator[StepCache]:
    """The rule with one evaluation moved to the next, but for the first ones."""
    for at in range(1 + rule.order, len(rule.computed)):
        for by in (-1, 1):
            moved = [*rule.computed]
            moved[at] += by
            if moved[at] < rule.steps and len({*moved}) == len(moved):
                yield replace(rule, computed=tuple(moved))


def _turned(rule: StepCache) -> Iterator[StepCache]:
    """The rule with other slopes, and itself."""
    for slope in (rule.slope, rule.slope - 0.1, rule.slope + 0.1):
        yield replace(rule, slope=round(min(max(slope, 0.0), 1.0), 2))
