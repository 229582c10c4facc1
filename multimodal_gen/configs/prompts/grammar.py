"""Weights within prompts, as AUTOMATIC1111's web UI and ComfyUI write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

PromptSyntax = Literal["plain", "a1111", "comfyui"]
DEEPEST = 100
"""Brackets that are nested more deeply are text."""
_STRONGER = 1.1
"""Factor of a pair of brackets without a number."""
_PIECES = re.compile(
    r"\\[\\()\[\]]?|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|[()\[\]:]|[^\\()\[\]:]+", re.ASCII
)
_BREAK = re.compile(r"\bBREAK\b")
_ESCAPES = (("\\(", "\0<"), ("\\)", "\0>"))
"""Escaped brackets, and what stands for them meanwhile: prompts contain no NUL."""


class WeightedText(NamedTuple):
    """A stretch of a prompt of one weight."""

    text: str
    weight: float = 1.0
    breaks: bool = False
    """It begins a chunk of its own."""


def parse(text: str, syntax: PromptSyntax) -> list[WeightedText]:
    """Split a prompt into at least one part. Nothing is an error: what has no meaning is text."""
    if syntax == "plain":
        return [WeightedText(text)]
    return _merged(_a1111(text) if syntax == "a1111" else _comfyui(text)) or [WeightedText("")]


def has_weights(text: str, syntax: PromptSyntax) -> bool:
    """Return whether a part of the prompt has another weight than 1, or begins a chunk."""
    return any(part.weight != 1 or part.breaks for part in parse(text, syntax))


def _a1111(text: str) -> Iterator[WeightedText]:
    """Yield the parts of `(a)`, `[a]`, `(a:1.3)`, which multiply, and of `BREAK`."""
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, factor: float) -> None:
        for i in range(opened[bracket].pop(), len(weights)):
            weights[i] *= factor

    for found in _PIECES.finditer(text):
        piece, weight = found[0], _number(found["weight"])
        if piece in opened and len(opened["("]) + len(opened["["]) < DEEPEST:
            opened[piece].append(len(texts))
        elif weight is not None and opened["("]:
            close("(", weight)
        elif piece == ")" and opened["("]:
            close("(", _STRONGER)
        elif piece == "]" and opened["["]:
            close("[", 1 / _STRONGER)
        else:
            texts.append(piece)
            weights.append(1.0)
    for bracket, factor in (("(", _STRONGER), ("[", 1 / _STRONGER)):
        while opened[bracket]:
            close(bracket, factor)
    for piece, weight in zip(texts, weights, strict=True):
        if piece.startswith("\\"):
            yield WeightedText(piece[1:], weight)
            continue
        first, *rest = _BREAK.split(piece)
        yield WeightedText(first.rstrip() if rest else first, weight)
        for number, stretch in enumerate(rest, 1):
            text = stretch.lstrip() if number == len(rest) else stretch.strip()
            yield WeightedText(text, weight, breaks=True)


def _comfyui(text: str) -> Iterator[WeightedText]:
    """Yield the parts of `(a)`, which multiplies, and of `(a:1.3)`, which replaces the weight."""
    for escape, mark in _ESCAPES:
        text = text.replace(escape, mark)
    left = [(text, 1.0, 0)]
    while left:
        text, weight, depth = left.pop()
        if depth == DEEPEST:
            for escape, mark in _ESCAPES:
                text = text.replace(mark, escape[1:])
            yield WeightedText(text, weight)
            continue
        inner: list[tuple[str, float, int]] = []
        for group in _groups(text):
            if len(group) >= 2 and group[0] == "(" and group[-1] == ")":
                inner.append((*_weighed(group[1:-1], weight), depth + 1))
            else:
                inner.append((group, weight, DEEPEST))
        left += reversed(inner)


def _groups(text: str) -> list[str]:
    """Split a text into its outermost pairs of brackets and what is between them."""
    ends, nesting = [0], 0
    for at, mark in ((found.start(), found[0]) for found in re.finditer(r"[()]", text)):
        if mark == "(" and nesting == 0:
            ends.append(at)
        nesting += 1 if mark == "(" else -1
        if mark == ")" and nesting == 0:
            ends.append(at + 1)
    ends.append(len(text))
    return [text[i:j] for i, j in pairwise(ends) if i < j]


def _weighed(text: str, outer: float) -> tuple[str, float]:
    inner, colon, number = text.rpartition(":")
    weight = _number(number) if colon and inner else None
    return (text, outer * _STRONGER) if weight is None else (inner, weight)


def _merged(parts: Iterator[WeightedText]) -> list[WeightedText]:
    merged: list[WeightedText] = []
    for part in parts:
        if merged and merged[-1].weight == part.weight and not part.breaks:
            merged[-1] = merged[-1]._replace(text=merged[-1].text + part.text)
        elif part.text or part.breaks:
            merged.append(part)
    return merged


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
