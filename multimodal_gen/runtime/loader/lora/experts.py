"""Finds which of two denoisers a LoRA is for, if its keys do not show it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from multimodal_gen.runtime.loader.lora.names import LoraPlace
from multimodal_gen.runtime.loader.lora.pairs import Pair

_NOISE = re.compile(r"(high|low)[-_ .]?noise", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+")
_NUMBERS = {"high": 0, "low": 1}


def expert_of(name: str) -> int | None:
    """0 for a name with `high_noise`, `HIGH` or the like, 1 for `low`; None if it says neither, or
    both."""
    said = {found.lower() for found in _NOISE.findall(name)}
    said = said or {word.lower() for word in _WORD.findall(name)} & _NUMBERS.keys()
    return _NUMBERS[said.pop()] if len(said) == 1 else None


def for_expert(
    pairs: Mapping[LoraPlace, Pair], denoisers: Sequence[str], target: str | None, name: str
) -> tuple[dict[LoraPlace, Pair], list[str]]:
    """Apply the denoiser's part to the target or, without one, to the denoiser that the keys or the
    name say.

    With a target, what is for other components is left out. Returns warnings too.
    """
    held = [each for each in denoisers if any(place.component == each for place in pairs)]
    if target is not None:
        source = held[0] if held and target in denoisers and target not in held else target
        found = _moved({p: pair for p, pair in pairs.items() if p.component == source}, target)
        return found, [] if found else [f"without effect, as it has no weights for {target}"]
    if len(denoisers) == 1 or held != denoisers[:1]:  # no choice, or the keys have made it
        return dict(pairs), []
    by_noise = denoisers[1] == f"{denoisers[0]}_2"
    expert = expert_of(name) if by_noise else None
    if expert is None:
        why = ", as its name says neither high nor low noise" if by_noise else ""
        said = f"applied to {held[0]} only{why}; a target says it: {', '.join(denoisers)}"
        return dict(pairs), [said]
    own = {place: pair for place, pair in pairs.items() if place.component == held[0]}
    others = {place: pair for place, pair in pairs.items() if place not in own}
    return others | _moved(own, denoisers[expert]), []


def _moved(pairs: Mapping[LoraPlace, Pair], component: str) -> dict[LoraPlace, Pair]:
    return {place._replace(component=component): pair for place, pair in pairs.items()}
