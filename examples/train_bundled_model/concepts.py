"""What the model knows: concepts with their words and colours, and their drawings."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from artwork import Icon, read_icons, render
from recolor import COLORS, recolor

HERE = Path(__file__).parent
RECOLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
"""Others are hard to see on their background, or change little."""


class Concept(NamedTuple):
    """Something that can be asked for."""

    icon: Icon
    also: tuple[str, ...]
    """Everyday synonyms of the name."""
    lone: tuple[str, ...]
    """Keywords that only this concept has."""
    everyday: bool
    paired: bool
    """Whether it is drawn beside others: of the commonest things, so that each is often."""
    mirror: bool
    """Whether it may be flipped."""
    noun: str | None
    """What a colour word is put before; None when it has one colour."""
    native: str | None
    """The colour word of the drawing as it is."""
    main: str | None
    """Its main fill, where the largest one is not the body's."""
    colors: tuple[str, ...]
    """Recoloured for training."""
    held_out: tuple[str, ...]
    """Recoloured only to see whether the model can."""


def read_concepts(folder: Path) -> dict[str, Concept]:
    """All selected concepts by name, from packages in `folder`."""
    icons = read_icons(folder)
    selected: dict[str, dict[str, Any]] = _read("concepts.json")
    colored = _read("colors.json")
    held_out: dict[str, list[str]] = {}
    for name, color in colored["held_out"]:
        held_out.setdefault(name, []).append(color)
    words = _taken(selected, colored["objects"])
    keywords = Counter(word for name in selected for word in icons[name].keywords)
    found = {}
    for name, entry in selected.items():
        icon, color = icons[name], colored["objects"].get(name, {})
        found[name] = Concept(
            icon=icon,
            also=tuple(entry.get("also", ())),
            lone=tuple(w for w in icon.keywords if keywords[w] == 1 and w not in words),
            everyday=entry.get("everyday", False),
            paired=entry.get("paired", False),
            mirror=entry.get("mirror", True),
            noun=color.get("noun"),
            native=color.get("native"),
            main=color.get("main"),
            colors=_colors(color, held_out.get(name, [])),
            held_out=tuple(held_out.get(name, ())) if color else (),
        )
    return found


def picture(concept: Concept, color: str | None, size: int) -> np.ndarray:
    """The drawing, in a colour of its own or in another: RGBA, uint8 [size, size, 4]."""
    body = None if color is None else recolor(concept.icon, color, concept.main)
    return render(concept.icon, size, body)


def held_out_artwork(icons: dict[str, Icon]) -> list[str]:
    """Names of drawings that the autoencoder never sees: one in twenty, the same ones always."""
    return [name for name in icons if hashlib.sha256(name.encode()).digest()[0] < 13]


def _colors(color: dict[str, Any], held_out: list[str]) -> tuple[str, ...]:
    if not color:
        return ()
    left_out = {color.get("native"), *color.get("skip", ()), *held_out}
    return tuple(word for word in RECOLORS if word not in left_out)


def _taken(selected: dict[str, dict[str, Any]], colored: dict[str, dict[str, Any]]) -> set[str]:
    """Words that are somebody's name already, or a colour."""
    also = {word for entry in selected.values() for word in entry.get("also", ())}
    return {*selected, *also, *COLORS, *(entry["noun"] for entry in colored.values())}


def _read(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))
