"""What is said of a scene: made anew for each sample, so that many wordings mean one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from concepts import Concept

TEMPLATES = (
    *("{n}",) * 4,
    *("{a} {n}",) * 6,
    "the {n}",
    "an emoji of {a} {n}",
    "a picture of {a} {n}",
    "a drawing of {a} {n}",
    "an icon of {a} {n}",
    "{n} emoji",
    "{n} icon",
    "a simple {n}",
)
PAIRS = (
    *("{a1} {n1} and {a2} {n2}",) * 5,
    *("{n1} and {n2}",) * 2,
    "{a1} {n1} next to {a2} {n2}",
    "{a1} {n1} beside {a2} {n2}",
    "{a1} {n1} with {a2} {n2}",
    "a picture of {a1} {n1} and {a2} {n2}",
)
GROUNDS = (
    *(" on {a} {g} background",) * 4,
    ", {g} background",
    " with {a} {g} background",
    " against {a} {g} background",
    " in front of {a} {g} background",
)
SYNONYM, NOUN, NATIVE = 0.5, 0.35, 0.6
"""How often a synonym is said where there is one; the noun; its own colour before the noun."""
LONE, APPENDED = 0.2, 0.06
"""How often a keyword stands alone; how often one or two follow the name."""
EMPTY = 0.16
"""How often nothing is said, for classifier-free guidance, of scenes whose background isn't
mentioned: were it of others, too, guidance would push towards the commonest background."""


class Thing(NamedTuple):
    """A concept, in its own colours or in another."""

    concept: str
    color: str | None = None


class Scene(NamedTuple):
    things: tuple[Thing, ...]
    background: str | None
    """Its word, if it is mentioned."""
    unknown: bool = False
    """It stands for words that mean nothing."""


class Captions:
    """Captions of scenes over `concepts`; `words` mean nothing here."""

    def __init__(self, concepts: Mapping[str, Concept], words: Sequence[str]) -> None:
        self._concepts = concepts
        self._words = np.array(words)

    def draw(
        self, scene: Scene, rng: np.random.Generator, lone: float = LONE, empty: float = 0.0
    ) -> str:
        """A caption, lower case. `empty` is how often it is an empty one; see `EMPTY`."""
        if scene.unknown:
            return self._nonsense(rng)
        if scene.background is None and rng.random() < empty:
            return ""
        if len(scene.things) == 2:
            first, second = (self._name(thing, rng) for thing in scene.things)
            template = PAIRS[rng.integers(len(PAIRS))]
            said = template.format(n1=first, a1=article(first), n2=second, a2=article(second))
        else:
            said = self._single(scene.things[0], rng, lone)
        if scene.background is not None:
            ground = GROUNDS[rng.integers(len(GROUNDS))]
            said += ground.format(g=scene.background, a=article(scene.background))
        return _spelled(said, rng)

    def _single(self, thing: Thing, rng: np.random.Generator, lone: float) -> str:
        concept = self._concepts[thing.concept]
        if thing.color is None and concept.lone and rng.random() < lone:
            return str(rng.choice(concept.lone))
        name = self._name(thing, rng)
        said = TEMPLATES[rng.integers(len(TEMPLATES))].format(n=name, a=article(name))
        if concept.icon.keywords and rng.random() < APPENDED:
            count = min(int(rng.integers(1, 3)), len(concept.icon.keywords))
            said = ", ".join([said, *rng.choice(concept.icon.keywords, count, replace=False)])
        return said

    def _name(self, thing: Thing, rng: np.random.Generator) -> str:
        concept = self._concepts[thing.concept]
        if thing.color is not None:
            return f"{thing.color} {concept.noun}"
        if concept.noun is not None and rng.random() < NOUN:
            native = concept.native is not None and rng.random() < NATIVE
            return f"{concept.native} {concept.noun}" if native else concept.noun
        if concept.also and rng.random() < SYNONYM:
            return str(rng.choice(concept.also))
        return thing.concept

    def _nonsense(self, rng: np.random.Generator) -> str:
        if rng.random() < 0.3:
            return "".join(chr(97 + code) for code in rng.integers(26, size=rng.integers(3, 9)))
        said = " ".join(rng.choice(self._words, int(rng.integers(1, 5))))
        return TEMPLATES[rng.integers(len(TEMPLATES))].format(n=said, a=article(said))


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _spelled(said: str, rng: np.random.Generator) -> str:
    return said.replace("gray", "grey") if rng.random() < 0.5 else said
