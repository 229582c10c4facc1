"""Which of two denoisers a LoRA is for, which its keys don't show."""

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
    """Apply the denoiser's part to the target or, without one, to the denoiser that the name says.

    With a target, what is for other components is left out. Returns warnings too.
    """
    warnings: list[str] = []
    denoiser = denoisers[0] if target is None or target not in denoisers else target
    if target is None and len(denoisers) > 1:
        number = expert_of(name)
        denoiser = denoisers[number or 0]
        if number is None and any(place.component == denoiser for place in pairs):
            known = ", ".join(denoisers)
            warnings.append(
                f"applied to {denoiser} only, as its name says neither high nor low noise; "
                f"a target says it: {known}"
            )
    moved = {
        place._replace(component=denoiser) if place.component in denoisers else place: pair
        for place, pair in pairs.items()
    }
    if target is not None:
        moved = {place: pair for place, pair in moved.items() if place.component == target}
    if not moved:
        warnings.append(f"without effect, as it has no weights for {target}")
    return moved, warnings
