"""The task of the language model, and its answer as a prompt."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import TemplateError

INSTRUCTION = (
    "You write prompts for a model that draws images and makes videos. Rewrite the user's prompt "
    "so that it describes one scene in concrete detail: the subject and what it does, the "
    "surroundings, the composition, light, colours and style, and in a video how things move. "
    "Keep everything that the user names, quote text that should be visible, and use the user's "
    "language. Answer with the new prompt alone, in one paragraph of at most 120 words."
)
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_QUOTES = ('""', "''", "“”", "„“", "«»")


def ids_of(tokenizer: Any, prompt: str) -> list[int]:
    """Tokens of the instruction and a prompt, up to where the answer begins."""
    if tokenizer.chat_template is None:
        text = f"{INSTRUCTION}\n\nPrompt: {prompt}\n\nNew prompt:"
        plain: list[int] = tokenizer(text).input_ids
        return plain
    asked = {"role": "user", "content": prompt}
    try:
        return _chat(tokenizer, [{"role": "system", "content": INSTRUCTION}, asked])
    except TemplateError:  # some have no system role
        return _chat(tokenizer, [{"role": "user", "content": f"{INSTRUCTION}\n\n{prompt}"}])


def _chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    return ids


def as_prompt(answer: str) -> str:
    """An answer without thoughts, line breaks and quotes around it."""
    text = " ".join(_THOUGHTS.sub("", answer).replace("\0", "").split())
    if len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text
