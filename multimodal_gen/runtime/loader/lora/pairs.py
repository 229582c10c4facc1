"""Sorts the tensors of a LoRA file by module, and accounts for each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.lora.keys import LoraPart, part_of
from multimodal_gen.runtime.loader.lora.names import LoraPlace, Names

_EMBEDDINGS = "bundle_emb."
_RANKED = ("lora.down", "hada.w1_b", "lokr.w2_b", "lokr.w1_b")
"""Parts that have as many rows as there are ranks."""
NO_EMBEDDINGS = "embeddings for words of the prompt are not supported"
NO_ENCODER = "this checkpoint has no such text encoder"


@dataclass
class Pair:
    """One module's part of a LoRA, as stored in the file."""

    name: str
    """Its module's name in the file."""
    keys: list[str] = field(default_factory=list)
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Its tensors by kind, without alpha."""
    alpha: float | None = None
    """None: the rank, so that the change is not scaled."""
    given_rank: int | None = None
    """That of PEFT's config, for a change that shows none."""

    @property
    def has_change(self) -> bool:
        """True if it is more than differences of full size."""
        return any(kind not in ("weight", "bias") for kind in self.parts)

    @property
    def rank(self) -> int | None:
        """Rank that alpha is relative to; None for a change that has none."""
        for kind in _RANKED:
            if (part := self.parts.get(kind)) is not None:
                return len(part)
        return self.given_rank

    @property
    def scale(self) -> float:
        """Scale of its change, apart from differences of full size."""
        return self.alpha / self.rank if self.alpha is not None and self.rank else 1.0


@dataclass
class SortedFile:
    """All tensors of a file."""

    pairs: dict[LoraPlace, Pair] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)
    """Keys without effect, and why."""
    unknown: list[str] = field(default_factory=list)


def sort_file(tensors: Mapping[str, Tensor], names: Names, target: str | None = None) -> SortedFile:
    """Group the tensors by module, of component `target` where the keys name none.

    Raises InvalidCheckpoint for one that is there twice.
    """
    found = SortedFile()
    for key, tensor in tensors.items():
        part = part_of(key)
        place = None if part is None else names.find(_module(part), target)
        if place is not None and part is not None:
            _put(found.pairs.setdefault(place, Pair(part.module)), part, key, tensor)
        elif key.startswith(_EMBEDDINGS):
            found.idle[key] = NO_EMBEDDINGS
        elif names.lacks_encoder(key):
            found.idle[key] = NO_ENCODER
        else:
            found.unknown.append(key)
    return found


def _module(part: LoraPart) -> str:
    """A table of Wan's is a tensor of its own."""
    return f"{part.module}.modulation" if part.kind == "modulation" else part.module


def _put(pair: Pair, part: LoraPart, key: str, tensor: Tensor) -> None:
    kind = "weight" if part.kind == "modulation" else part.kind
    if kind in pair.parts or (kind == "alpha" and pair.alpha is not None):
        raise InvalidCheckpoint(f"{key}: is there twice, like {', '.join(pair.keys)}")
    if kind == "alpha":
        pair.alpha = _alpha_in(key, tensor)
    elif tensor.dim():
        pair.parts[kind] = tensor
    else:
        raise InvalidCheckpoint(f"{key}: must have dimensions")
    pair.keys.append(key)


def _alpha_in(key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not math.isfinite(alpha := float(tensor)):
        raise InvalidCheckpoint(f"{key} {list(tensor.shape)}: must be one finite number")
    return alpha


def scaled_by(
    pairs: Mapping[LoraPlace, Pair], configs: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Set alphas from PEFT's config of each component, which override those in the file.

    Returns patterns that match no module. Raises InvalidCheckpoint.
    """
    unmatched = {
        pattern: None
        for config in configs.values()
        for pattern in config.get("alpha_pattern") or {}
    }
    for place, pair in pairs.items():
        config = configs.get(place.component)
        if config and pair.has_change:
            spellings = {pair.name, *place.modules}
            spellings |= {f"{place.component}.{name}" for name in place.modules}
            pair.given_rank = int(_matched(config, "r", spellings, {}, 8))
            pair.alpha = _alpha(config, spellings, pair.rank or 1, unmatched)
    return list(unmatched)


def _alpha(
    config: Mapping[str, Any], names: set[str], rank: int, unmatched: dict[str, None]
) -> float:
    """Compute alpha as PEFT does: by pattern or for all, relative to the rank or its root."""
    key = "lora_alpha" if "lora_alpha" in config else "alpha"
    alpha = _matched(config, key, names, unmatched, 8)
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _matched(
    config: Mapping[str, Any], key: str, names: set[str], unmatched: dict[str, None], default: int
) -> float:
    """A number of PEFT's config for a module: by the first pattern that has its name, or for
    all."""
    patterns = config.get({"r": "rank_pattern"}.get(key, "alpha_pattern")) or {}
    for pattern, own in patterns.items():
        if any(_matches(pattern, name) for name in names):
            unmatched.pop(pattern, None)
            return float(own)
    return float(config.get(key, default))


def _matches(pattern: str, name: str) -> bool:
    """Match like PEFT, whose patterns are regular expressions; any pattern that is not a plain name
    is refused, because matching an untrusted one could take forever."""
    plain = pattern.removeprefix("^").replace("\\.", ".")
    if not re.fullmatch(r"[\w.-]+", plain):
        raise InvalidCheckpoint(f"alpha_pattern: {pattern!r:.100} must be the name of a module")
    return name == plain or (not pattern.startswith("^") and name.endswith(f".{plain}"))
