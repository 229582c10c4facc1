"""Prompts with what their pictures should show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import packages
from captions import Thing, article
from concepts import Concept
from drawing import UNKNOWN
from retrieval import Gallery
from scenes import BACKGROUNDS

SEEN = 0.7
"""The least share of a drawing that is told from the background asked for."""


class Question(NamedTuple):
    """A prompt, the things that should be seen in their order, and the background, if asked for."""

    prompt: str
    things: tuple[Thing, ...]
    background: str | None = None
    exact: bool = False
    """Whether the colour must be right, too."""


class Questioner:
    """Makes questions about `concepts`, at most `limit` of a kind."""

    def __init__(self, concepts: Mapping[str, Concept], limit: int | None, seed: int) -> None:
        self._concepts = concepts
        self._limit = limit
        self._seed = seed
        self._everyday = [name for name, concept in concepts.items() if concept.everyday]
        self._paired = [name for name, concept in concepts.items() if concept.paired]

    def names(self) -> list[Question]:
        return self._some([_about(name, name) for name in self._concepts])

    def everyday(self, count: int | None = None) -> list[Question]:
        return self._some([_about(name, name) for name in self._everyday], count)

    def synonyms(self, count: int) -> list[Question]:
        found = self._concepts.items()
        return self._some([_about(name, word) for name, c in found for word in c.also], count)

    def keywords(self, count: int) -> list[Question]:
        found = self._concepts.items()
        said = [Question(word, (Thing(name),)) for name, c in found for word in c.lone]
        return self._some(said, count)

    def recolored(self, count: int) -> list[Question]:
        found = self._concepts.items()
        return self._some([_colored(n, c, color) for n, c in found for color in c.colors], count)

    def held_out(self) -> list[Question]:
        found = self._concepts.items()
        return self._some([_colored(n, c, color) for n, c in found for color in c.held_out])

    def backgrounds(self, gallery: Gallery, count: int) -> list[Question]:
        """Of everyday things, where they can be seen on the background."""
        found = []
        for name in self._everyday:
            for word, shades in BACKGROUNDS.items():
                if gallery.seen((name, None), shades[0]) > SEEN:
                    prompt = f"{article(name)} {name} on {article(word)} {word} background"
                    found.append(Question(prompt, (Thing(name),), word))
        return self._some(found, count)

    def pairs(self, count: int) -> list[Question]:
        """Of things that were drawn beside others."""
        rng = np.random.default_rng(self._seed)
        found = []
        for _ in range(count):
            first, second = (str(name) for name in rng.choice(self._paired, 2, replace=False))
            prompt = f"{article(first)} {first} and {article(second)} {second}"
            found.append(Question(prompt, (Thing(first), Thing(second))))
        return self._some(found)

    def unknown(self, folder: Path, count: int) -> list[Question]:
        """English words that are none of the model's."""
        said = " ".join([*self._concepts, *(w for c in self._concepts.values() for w in c.also)])
        keywords = {word for c in self._concepts.values() for word in c.icon.keywords}
        known = {*said.split(), *" ".join(keywords).split()}
        listed = packages.read_json(folder, packages.WORDS, "index.json")
        words = [word for word in listed if word not in known and 4 <= len(word) <= 10]
        picked = np.random.default_rng(self._seed).choice(words, count)
        return self._some([_about(UNKNOWN, str(word)) for word in picked])

    def _some(self, found: list[Question], count: int | None = None) -> list[Question]:
        """A random choice, as many as allowed; the same ones for the same seed."""
        limits = [limit for limit in (count, self._limit) if limit is not None]
        picked = np.random.default_rng(self._seed).permutation(len(found))
        return [found[place] for place in sorted(picked[: min([len(found), *limits])])]


def _about(name: str, said: str) -> Question:
    return Question(f"{article(said)} {said}", (Thing(name),))


def _colored(name: str, concept: Concept, color: str) -> Question:
    prompt = f"{article(color)} {color} {concept.noun}"
    return Question(prompt, (Thing(name, color),), exact=True)
