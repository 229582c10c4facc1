"""The drawings: what each is called, what belongs to it in words, and its pixels."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import packages
import resvg_py
from PIL import Image

SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
VARIATION_SELECTOR = "fe0f"


class Icon(NamedTuple):
    """One drawing. `body` is the inside of its SVG, over `box` (left, top, width, height)."""

    name: str
    """As in the CLDR, lower case."""
    emoji: str
    group: str
    keywords: tuple[str, ...]
    body: str
    box: tuple[float, float, float, float]


def read_icons(folder: Path) -> dict[str, Icon]:
    """All drawings with a name, by it: no flags, no skin tones."""
    icons = packages.read_json(folder, packages.ARTWORK, "icons.json")
    chars = packages.read_json(folder, packages.ARTWORK, "chars.json")
    names = packages.read_json(folder, packages.NAMES, "data-by-emoji.json")
    keywords = _read_keywords(folder)
    named = {_plain(emoji): (emoji, entry) for emoji, entry in names.items()}
    found: dict[str, Icon] = {}
    for code, key in chars.items():
        points = code.split("-")
        known = named.get("-".join(p for p in points if p != VARIATION_SELECTOR))
        if known is None or SKIN_TONES & set(points) or key not in icons["icons"]:
            continue
        emoji, entry = known
        if entry["group"] == "Flags":
            continue
        icon = icons["icons"][key]
        box = tuple(
            float(icon.get(side, icons.get(side, default)))
            for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        name = re.sub(r"[^a-z0-9&' -]", "", entry["name"].lower().replace("\u2019", "'"))
        found[name] = Icon(
            name, emoji, entry["group"], keywords.get(_plain(emoji), ()), icon["body"], box
        )
    return dict(sorted(found.items()))


def render(icon: Icon, size: int, body: str | None = None) -> np.ndarray:
    """The drawing as RGBA, uint8 [size, size, 4]; with another `body` (recoloured) on request."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{" ".join(map(str, icon.box))}">'
        f"{body or icon.body}</svg>"
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def _read_keywords(folder: Path) -> dict[str, tuple[str, ...]]:
    """Of both lists, one word or a few each, lower case, by plain code points."""
    found: dict[str, dict[str, None]] = {}
    emojilib = packages.read_json(folder, packages.KEYWORDS, "dist/emoji-en-US.json")
    for emoji, words in emojilib.items():
        found.setdefault(_plain(emoji), {}).update(
            dict.fromkeys(word.replace("_", " ").lower() for word in words)
        )
    for entry in packages.read_json(folder, packages.TAGS, "en/data.json"):
        found.setdefault(_plain(entry["emoji"]), {}).update(
            dict.fromkeys(tag.lower() for tag in entry.get("tags", ()))
        )
    usable = re.compile(r"[a-z][a-z' -]{2,20}")
    return {key: tuple(w for w in words if usable.fullmatch(w)) for key, words in found.items()}


def _plain(emoji: str) -> str:
    points = [f"{ord(character):x}" for character in emoji]
    return "-".join(point for point in points if point != VARIATION_SELECTOR)
