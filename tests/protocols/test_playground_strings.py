"""The playground's words: each is marked for translation, and each has its Chinese."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from multimodal_gen.checkpoints.prompts.examples import read_examples
from multimodal_gen.entrypoints.http.ops.playground import number_of
from multimodal_gen.launch.model_path import BUNDLED_MODEL

FOLDER = Path(str(resources.files("multimodal_gen") / "assets" / "playground"))
SCRIPTS = sorted(FOLDER.rglob("*.js"))
CHINESE: dict[str, str] = json.loads((FOLDER / "chinese.json").read_text("utf-8"))
NAMES = {"API", "LoRA", "LoRAs", "Lanczos", "multimodal_gen"}
"""Words that are the same in every language."""

ATTRIBUTES = ("aria-label", "title", "placeholder", "alt")
VOID = {"input", "meta", "link", "img", "br", "use", "path", "rect", "circle"}
QUOTED = r'"(?:[^"\\\n]|\\.)*"'
TEMPLATE = r"`(?:[^`\\]|\\.)*`"
LITERAL = rf"(?:{QUOTED}|{TEMPLATE})"
SHOWN_BARE = [
    # An attribute that is read, a message, an element's text, and text behind an icon.
    rf'(?:"aria-label"|"aria-valuetext"|\b(?:title|placeholder|alt|ariaLabel))\s*:\s*({LITERAL})',
    rf"\b(?:toast|complain|say|confirm|alert)\(({LITERAL})",
    rf"\b(?:textContent|placeholder|title|ariaLabel)\s*=\s*({LITERAL})",
    rf'\bicon\("[\w-]+"\),\s*({LITERAL})',
    rf"\bh\([^()]*\}},\s*({LITERAL})\)",
]


class Words(HTMLParser):
    """Texts and attributes of a page that are read by its users."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._untranslated: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        silent = tag in ("script", "style", "code", "kbd", "title")
        silent |= given.get("translate") == "no"
        if not silent:
            self.found |= {given[name] or "" for name in ATTRIBUTES if given.get(name)}
        if tag not in VOID:
            self._open.append("no" if silent else "yes")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        text = data.strip()
        if "no" not in self._open and re.search("[a-zA-Z]", text):
            self.found.add(text)


def code_of(script: Path) -> str:
    return re.sub(r"(?m)(^|\s)//.*$", "", script.read_text("utf-8"))


def letters_of(literal: str) -> set[str]:
    """Words of a literal that are no values and no names."""
    text = re.sub(r"\$\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", "", literal)
    return set(re.findall("[A-Za-z_]{2,}", text)) - NAMES


def english() -> set[str]:
    found = Words((FOLDER / "index.html").read_text("utf-8")).found
    for script in SCRIPTS:
        for literal in re.findall(rf"\b(?:t|addTab)\(({QUOTED})", code_of(script)):
            found.add(json.loads(literal))
    known = read_examples(BUNDLED_MODEL).known
    assert known
    return found | {known.unknown}


def test_every_text_has_its_chinese_and_no_chinese_is_of_a_text_that_is_gone() -> None:
    known = english()
    assert not sorted(known - CHINESE.keys()), "add these to chinese.json"
    assert not sorted(CHINESE.keys() - known), "no part of the page says these any more"


def test_a_translation_has_the_values_of_its_text() -> None:
    for text, translated in CHINESE.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", translated)), text


def test_translations_are_chinese() -> None:
    same = {text for text, translated in CHINESE.items() if text == translated}
    assert same <= NAMES
    lacking = {text for text, translated in CHINESE.items() if not re.search("[一-鿿]", translated)}
    assert lacking <= NAMES


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_is_shown_is_marked_for_translation(script: Path) -> None:
    text = code_of(script)
    assert not re.findall(r"\bt\(`", text), 't() takes "text with {names}", and their values'
    bare = {
        literal
        for pattern in SHOWN_BARE
        for literal in re.findall(pattern, text)
        if letters_of(literal)
    }
    assert not bare, "wrap these in t()"


def test_no_two_texts_have_one_number() -> None:
    assert len({number_of(text) for text in CHINESE}) == len(CHINESE)
