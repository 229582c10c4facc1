"""Finds the end of a prompt that an encoder does not read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from multimodal_gen.configs.prompts.grammar import PromptSyntax, WeightedText


class Cut(NamedTuple):
    """The end of a prompt that is not read."""

    limit: int
    """Tokens that are read, with those around each text."""
    lost: int
    """Tokens that are not."""
    text: str


class CutsPrompts(Protocol):
    """An encoder, as far as it cuts prompts."""

    def cut(self, text: str, syntax: PromptSyntax, length: int | None = None) -> Cut | None:
        """Return what is cut off at `length` tokens; by default, at as many as it takes."""


@dataclass(frozen=True)
class Framed:
    """Cuts prompts within a template."""

    tokenizer: Any
    frame: Callable[[str], str]
    around: int
    """Tokens of the template that are read besides `length`, or `fixed`."""
    fixed: int | None = None
    """Tokens of a prompt, if requests can't choose them."""

    def cut(self, text: str, syntax: PromptSyntax, length: int | None = None) -> Cut | None:
        limit = self.fixed or length
        assert limit is not None
        return cut_within(self.tokenizer, self.frame(text), text, limit, self.around)


def cut_within(
    tokenizer: Any, whole: str, text: str, limit: int, around: int = 0, **options: bool
) -> Cut | None:
    """Return what is lost of `text`, a part of `whole`, whose first `limit` + `around` tokens are
    read; `options` are the tokenizer's."""
    read = tokenizer(whole, return_special_tokens_mask=True, **_offsets(tokenizer), **options)
    marks = read["special_tokens_mask"]
    kept = max(0, limit + around - sum(marks))
    places = [place for place, mark in enumerate(marks) if not mark]
    if len(places) <= kept:
        return None
    if "offset_mapping" not in read:
        ids = [read["input_ids"][place] for place in places[kept:]]
        return Cut(limit, len(ids), tokenizer.decode(ids))
    stripped = text.strip()
    start = max(0, whole.rfind(stripped))
    end = start + len(stripped)
    starts = [read["offset_mapping"][place][0] for place in places[kept:]]
    lost = [each for each in starts if each < end]
    return Cut(limit, len(lost), whole[max(start, lost[0]) : end]) if lost else None


def cut_in_parts(
    tokenizer: Any, parts: Sequence[WeightedText], room: int, limit: int
) -> Cut | None:
    """Return what is lost of the parts of a prompt, of whose tokens `room` are read."""
    texts = [part.text for part in parts]
    read = tokenizer(texts, add_special_tokens=False, **_offsets(tokenizer))
    counts = [len(ids) for ids in read["input_ids"]]
    lost = sum(counts) - room
    if lost <= 0:
        return None
    part, left = 0, room
    while left >= counts[part]:
        left -= counts[part]
        part += 1
    if "offset_mapping" in read:
        begun = texts[part][read["offset_mapping"][part][left][0] :]
    else:
        begun = tokenizer.decode(read["input_ids"][part][left:])
    return Cut(limit, lost, begun + "".join(texts[part + 1 :]))


def _offsets(tokenizer: Any) -> dict[str, bool]:
    """Option for the places of tokens in a text, which only fast tokenizers know."""
    return {"return_offsets_mapping": True} if tokenizer.is_fast else {}
