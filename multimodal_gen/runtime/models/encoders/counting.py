"""Counts the tokens of prompts, for accounts of use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from multimodal_gen.configs.prompts.grammar import PromptSyntax, parse

_REMEMBERED = 256


class TokenCounter:
    """Counts as the tokenizer that makes most tokens of a text: each encoder reads all of it."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        """`components` of a pipeline: tokenizers, and processors that have one. They are None on a
        rank that does not encode."""
        held = (getattr(each, "tokenizer", each) for each in components.values())
        self._tokenizers = [each for each in held if isinstance(each, PreTrainedTokenizerBase)]
        self._counted = lru_cache(_REMEMBERED)(self._count)

    def __call__(self, text: str, syntax: PromptSyntax) -> int:
        """Number of tokens of a prompt, without those that each text has around it."""
        return self._counted(text, syntax)

    def _count(self, text: str, syntax: PromptSyntax) -> int:
        texts = [part.text for part in parse(text, syntax)]
        return max((_tokens(tokenizer, texts) for tokenizer in self._tokenizers), default=0)


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    return sum(map(len, ids))
