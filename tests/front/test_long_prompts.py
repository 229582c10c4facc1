"""Texts of requests are read in a time that grows with their length, not with its square."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import pytest

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.prompts.grammar import parse
from multimodal_gen.entrypoints.http.a1111.prompt_syntax import parse_prompt
from multimodal_gen.errors import InvalidRequest

LONG = 100_000
"""Characters: a pattern that tries every stretch of so many takes minutes."""


@pytest.fixture
def patience() -> Iterator[None]:
    """End a test that hangs."""

    def give_up(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError("the pattern does not end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lambda text: parse(text, "a1111"), "a" + " " * LONG + "b"),
        (lambda text: parse_prompt(text, weighted=True), "[" + ":" * LONG),
        (LoraChoice.of, "a@" + "1" * LONG + "x"),
        (ControlChoice.of, "a=b@" + "1" * LONG + "x"),
    ],
    ids=["spaces", "a bracket", "a LoRA", "a control"],
)
@pytest.mark.usefixtures("patience")
def test_a_long_text_is_read_at_once(read: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        read(text)
