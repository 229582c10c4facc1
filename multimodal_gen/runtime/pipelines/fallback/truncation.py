"""Hears of prompts that the library cuts, which it only logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from multimodal_gen.messages.request_warning import RequestWarning

_LOGGED = re.compile(
    r"part of your input was truncated because (?:(\w+) can )?.*? (\d+) tokens:? (.*)", re.DOTALL
)
_LOGGER = logging.getLogger("diffusers")
_LONGEST = 300
"""Characters of what is cut off."""


@contextmanager
def cuts_heard(prompt: str, negative_prompt: str) -> Iterator[list[RequestWarning]]:
    """Collect a warning for each prompt that the library cuts in the block, once."""
    listener = _Listener(prompt, negative_prompt)
    before = _LOGGER.level, _LOGGER.handlers
    _LOGGER.setLevel(logging.WARNING)  # quiet otherwise
    _LOGGER.handlers = [listener]
    try:
        yield listener.heard
    finally:
        _LOGGER.setLevel(before[0])
        _LOGGER.handlers = before[1]


class _Listener(logging.Handler):
    def __init__(self, prompt: str, negative_prompt: str) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[RequestWarning] = []
        self._texts = {"prompt": _folded(prompt), "negative_prompt": _folded(negative_prompt)}

    def emit(self, record: logging.LogRecord) -> None:
        found = _LOGGED.search(record.getMessage())
        if found is None:
            return
        encoder, limit, lost = found.groups()
        lost = lost.strip().removeprefix("[").removesuffix("]").strip("'\"")
        field = self._field(lost)
        if any(each.field == field for each in self.heard):
            return
        shown = lost if len(lost) <= _LONGEST else f"{lost[: _LONGEST - 1]}…"
        where = f"{limit} tokens{f' by {encoder}' if encoder else ''}"
        text = f"{field}: cut at {where}: the end is not read, {shown!r}"
        self.heard.append(RequestWarning("prompt_cut", field, text))

    def _field(self, lost: str) -> str:
        """The prompt that ends like this; tokenizers change spaces and case."""
        end = _folded(lost)
        ends = (field for field, text in self._texts.items() if text.endswith(end))
        return next(ends, "prompt")


def _folded(text: str) -> str:
    return re.sub(r"\W+|</?\w+>", "", text).lower()
