"""Parses the keys of LoRA files: the module that a tensor is for, and what it is to it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_ADAPTER = r"(?:\.(?!weight$|bias$)\w+)?"
_KINDS: tuple[tuple[str, str], ...] = (
    ("lora.bias", rf"[._]lora[._](?:B|up){_ADAPTER}\.bias"),
    ("lora.down", rf"[._]lora(?:_linear_layer)?[._](?:A|down){_ADAPTER}(?:\.weight)?"),
    ("lora.up", rf"[._]lora(?:_linear_layer)?[._](?:B|up){_ADAPTER}(?:\.weight)?"),
    ("lora.mid", r"[._]lora_mid(?:\.weight)?"),
    ("hada.{}", r"\.hada_(w[12]_[ab]|t[12])(?:\.\w+)?"),
    ("lokr.{}", r"\.lokr_(w[12](?:_[ab])?|t2)(?:\.\w+)?"),
    ("norms", rf"[._]lora_magnitude_vector{_ADAPTER}(?:\.weight)?"),
    ("dora_scale", r"\.dora_scale"),
    ("alpha", r"\.alpha"),
    ("weight", r"\.(?:diff|w_norm)"),
    ("bias", r"\.(?:diff_b|b_norm)"),
    ("modulation", r"\.diff_m"),
)
"""Kinds of parts; `weight`, `bias` and `modulation` are differences of full size."""
_PATTERNS = [(kind, re.compile(rf"(?P<module>.+?){suffix}$")) for kind, suffix in _KINDS]
_XLABS = re.compile(r"\.processor\.(qkv|proj)_lora([12])\.")
_XLABS_STREAMS = {"1": "img_attn", "2": "txt_attn"}
_OTHERS = {
    "oft_": "OFT",
    "ia3": "IA3",
    ".a1.weight": "GLoRA",
    ".set_weight": "weights that replace the model's",
    ".reshape_weight": "weights of another shape than the model's",
}


class LoraPart(NamedTuple):
    """Meaning of a tensor of the file: the part `kind` of the LoRA for `module`."""

    module: str
    kind: str


def part_of(key: str) -> LoraPart | None:
    """Parse a key; None if it is no part of a LoRA."""
    key = _XLABS.sub(lambda found: f".{_XLABS_STREAMS[found[2]]}.{found[1]}.lora.", key)
    for kind, pattern in _PATTERNS:
        if match := pattern.match(key):
            kind = kind.format(*match.groups()[1:])
            return LoraPart(match["module"].replace(".processor.", "."), kind)
    return None


def other_form(keys: Collection[str]) -> tuple[str, list[str]] | None:
    """Name a form of adapter that is not supported, with its keys; None if there is none."""
    for mark, what in _OTHERS.items():
        if found := sorted(key for key in keys if mark in key):
            return what, found
    return None
