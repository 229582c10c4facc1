"""Example prompts of a checkpoint, and the words that it knows: its examples.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from multimodal_gen.checkpoints.files import inside, read_json
from multimodal_gen.errors import InvalidCheckpoint

EXAMPLES = "examples.json"
_Text = Annotated[str, Meta(min_length=1, max_length=1000)]
_Words = Annotated[tuple[_Text, ...], Meta(max_length=20_000)]


class ExamplePrompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt that shows what a model can do."""

    prompt: _Text
    picture: (
        Annotated[
            str,
            Meta(
                max_length=1 << 15, pattern=r"^data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$"
            ),
        ]
        | None
    ) = None
    """What it looks like, as a data URL."""


class KnownWords(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a model of few words can be asked for."""

    things: dict[_Text, _Words]
    """Names, each with its synonyms."""
    colored: _Words = ()
    """Names of those that can be had in each of `colors`."""
    colors: _Words = ()
    backgrounds: _Words = ()
    """Colours of backgrounds."""
    words: _Words = ()
    """Further words that mean something."""
    unknown: Annotated[str, Meta(max_length=1000)] = ""
    """A sentence: what it makes of a word that it doesn't know."""


class Examples(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    prompts: Annotated[tuple[ExamplePrompt, ...], Meta(max_length=24)] = ()
    known: KnownWords | None = None


def read_examples(folder: Path) -> Examples:
    """Read the examples of a checkpoint; empty without the file. Raises InvalidCheckpoint."""
    if not inside(folder, EXAMPLES).is_file():
        return Examples()
    try:
        return msgspec.convert(read_json(folder, EXAMPLES), Examples)
    except msgspec.ValidationError as error:
        raise InvalidCheckpoint(f"{EXAMPLES}: {error}") from error
