"""Claims of a LoRA file about itself: titles, trigger words and a thumbnail, from its metadata."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TITLES = ("modelspec.title", "ss_output_name")
_BASES = ("modelspec.architecture", "ss_base_model_version")
_PICTURE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+")
_LONGEST = 300
_MOST_WORDS = 10
_LARGEST_PICTURE = 1 << 17
"""Characters of a thumbnail."""
_LARGEST_TAGS = 4 << 20


@dataclass(frozen=True)
class LoraAbout:
    """Claims of a file; they need not be true. Nothing said: empty."""

    titles: tuple[str, ...] = ()
    """Names that its author gave it."""
    base: str = ""
    """The model that it was trained on."""
    trigger_words: tuple[str, ...] = ()
    """Words for prompts: the author's, or the most frequent tags of the training data."""
    thumbnail: str | None = None
    """A data URL."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> LoraAbout:
        """Read the conventions of kohya's trainer and Stability's modelspec."""
        picture = metadata.get("modelspec.thumbnail")
        return cls(
            titles=tuple(text for key in _TITLES if (text := _text(metadata, key))),
            base=next((text for key in _BASES if (text := _text(metadata, key))), ""),
            trigger_words=_trigger_words(metadata),
            thumbnail=picture if _is_picture(picture) else None,
        )


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    text = value.strip()[:_LONGEST] if isinstance(value, str) else ""
    return "" if text == "None" else "".join(c for c in text if c.isprintable())


def _is_picture(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _LARGEST_PICTURE:
        return False
    return _PICTURE.fullmatch(value) is not None


def _trigger_words(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    if phrase := _text(metadata, "modelspec.trigger_phrase"):
        return (phrase,)
    counts: Counter[str] = Counter()
    for tags in _objects_in(_tags(metadata)):
        counts.update({tag.strip(): n for tag, n in tags.items() if isinstance(n, int)})
    found = (_text({"tag": tag}, "tag") for tag, _ in counts.most_common(_MOST_WORDS))
    return tuple(tag for tag in found if tag)


def _tags(metadata: Mapping[str, Any]) -> Any:
    """kohya's counts of tags, by folder of the training data."""
    text = metadata.get("ss_tag_frequency")
    if not isinstance(text, str) or len(text) > _LARGEST_TAGS:
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _objects_in(value: Any) -> list[dict[str, Any]]:
    found = value.values() if isinstance(value, dict) else ()
    return [each for each in found if isinstance(each, dict)]
