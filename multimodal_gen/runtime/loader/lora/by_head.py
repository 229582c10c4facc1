"""LoRAs of DiffSynth-Studio, which trains fused queries, keys and values as some authors store
them: those of the first head, then those of the next.

Other trainers put the queries of all heads first. Only PEFT's name of the adapter in the keys tells
the files apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multimodal_gen.runtime.loader.lora.names import LoraPlace
from multimodal_gen.runtime.loader.lora.pairs import Pair
from multimodal_gen.runtime.loader.lora.targets import Target

_NAMED = re.compile(r"\.lora_[AB]\.default\.weight$")


def is_by_head(keys: Iterable[str]) -> bool:
    """True for keys that have PEFT's name of the adapter."""
    return any(map(_NAMED.search, keys))


def by_head(
    pairs: Mapping[LoraPlace, Pair],
    norms: Mapping[tuple[str, ...], str],
    targets: Mapping[str, Mapping[str, Target]],
) -> dict[LoraPlace, Pair]:
    """The pairs, at places that say how wide heads are where their rows are by head.

    `norms` are the norms over one head of the modules that a fused one stands for.
    """
    found = {}
    for place, pair in pairs.items():
        norm = targets[place.component].get(norms.get(place.modules, ""))
        found[place if norm is None else place._replace(head=norm.shape[0])] = pair
    return found
