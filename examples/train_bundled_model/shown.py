"""Writes examples.json: prompts that show what the model can do, and all that it knows."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sampling
from captions import GROUNDS, PAIRS, TEMPLATES
from concepts import RECOLORS, Concept
from PIL import Image
from scenes import BACKGROUNDS

PROMPTS = (
    "a red heart",
    "a rocket",
    "a slice of pizza",
    "a purple car",
    "a dog on a blue background",
    "a blue butterfly",
    "a tree next to a house",
    "a strawberry on a yellow background",
    "a unicorn",
    "a green dinosaur",
    "a yellow star on a black background",
    "a frog on a pink background",
)
SEED = 0
QUALITY = 70
UNKNOWN = "A red question mark means: a word it doesn't know."


def write_examples(out: Path, concepts: Mapping[str, Concept]) -> None:
    """Draw the example prompts by the finished model in `out`, and write the file there."""
    pictures = sampling.draw(sampling.load(out), list(PROMPTS), [SEED] * len(PROMPTS))
    prompts = [
        {"prompt": prompt, "picture": _data_url(Image.fromarray(pixels))}
        for prompt, pixels in zip(PROMPTS, pictures, strict=True)
    ]
    shown = {"prompts": prompts, "known": known(concepts)}
    (out / "examples.json").write_text(json.dumps(shown, separators=(",", ":")) + "\n")


def known(concepts: Mapping[str, Concept]) -> dict[str, Any]:
    """Names and synonyms, what can be recoloured, and the other words of captions."""
    things = {name: list(concept.also) for name, concept in concepts.items()}
    named = _words(*things, *(word for also in things.values() for word in also))
    said = _words(*TEMPLATES, *PAIRS, *GROUNDS, *RECOLORS, *BACKGROUNDS, "grey an a")
    keywords = _words(
        *(word for each in concepts.values() for word in (*each.lone, *each.icon.keywords)),
        *(concept.noun or "" for concept in concepts.values()),
    )
    return {
        "things": things,
        "colored": [concept.noun for concept in concepts.values() if concept.colors],
        "colors": list(RECOLORS),
        "backgrounds": list(BACKGROUNDS),
        "words": sorted((said | keywords) - named),
        "unknown": UNKNOWN,
    }


def _words(*texts: str) -> set[str]:
    without_names = (re.sub(r"\{\w+\}", " ", text) for text in texts)
    return {word for text in without_names for word in re.findall(r"[a-z0-9'&]+", text)}


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "webp", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
