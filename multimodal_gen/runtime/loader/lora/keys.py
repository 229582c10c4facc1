"""Parses the keys of LoRA files: the module that a tensor is for, and what it is to it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, NamedTuple

PartKind = Literal["down", "up", "lora_bias", "alpha", "weight", "bias", "modulation"]
"""`weight`, `bias` and `modulation` are differences of full size."""

_ADAPTER = r"(?:\.(?!weight$|bias$)\w+)?"
_KINDS: tuple[tuple[PartKind, str], ...] = (
    ("lora_bias", rf"[._]lora[._](?:B|up){_ADAPTER}\.bias"),
    ("down", rf"[._]lora(?:_linear_layer)?[._](?:A|down){_ADAPTER}(?:\.weight)?"),
    ("up", rf"[._]lora(?:_linear_layer)?[._](?:B|up){_ADAPTER}(?:\.weight)?"),
    ("alpha", r"\.alpha"),
    ("weight", r"\.(?:diff|w_norm)"),
    ("bias", r"\.(?:diff_b|b_norm)"),
    ("modulation", r"\.diff_m"),
)
_PATTERNS = [(kind, re.compile(rf"(?P<module>.+?){suffix}$")) for kind, suffix in _KINDS]
_XLABS = re.compile(r"\.processor\.(qkv|proj)_lora([12])\.")
_XLABS_STREAMS = {"1": "img_attn", "2": "txt_attn"}
_OTHERS = {
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "ia3": "IA3",
    "lora_mid": "a LoCon with a Tucker core",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    ".a1.weight": "GLoRA",
    ".set_weight": "weights that replace the model's",
    ".reshape_weight": "weights of another shape than the model's",
}


class LoraPart(NamedTuple):
    """Meaning of a tensor of the file: the part `kind` of the LoRA for `module`."""

    module: str
    kind: PartKind


def part_of(key: str) -> LoraPart | None:
    """Parse a key; None if it is no part of a LoRA."""
    key = _XLABS.sub(lambda found: f".{_XLABS_STREAMS[found[2]]}.{found[1]}.lora.", key)
    for kind, pattern in _PATTERNS:
        if match := pattern.match(key):
            return LoraPart(match["module"].replace(".processor.", "."), kind)
    return None


def other_form(keys: Collection[str]) -> tuple[str, list[str]] | None:
    """Name a form of adapter that is not supported, with its keys; None if there is none."""
    for mark, what in _OTHERS.items():
        if found := sorted(key for key in keys if mark in key):
            return what, found
    return None
