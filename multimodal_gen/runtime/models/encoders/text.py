"""Encodes prompts to token ids and hidden states, as diffusers' pipelines do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.prompts.grammar import PromptSyntax
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.encoders.cutting import Cut, cut_within


class TextEncoder:
    """A tokenizer and its transformers module."""

    def __init__(self, tokenizer: Any, module: Any, padding_side: str | None = None) -> None:
        """Raises InvalidCheckpoint if the two don't match. The tokenizer is None on a rank that
        does not encode."""
        self._tokenizer = tokenizer
        self._module = module
        if tokenizer is None:
            return
        if padding_side is not None:
            tokenizer.padding_side = padding_side
        name, longest = Path(tokenizer.name_or_path).name, tokenizer.model_max_length
        if tokenizer.pad_token_id is None:
            raise InvalidCheckpoint(f"{name}: has no pad_token")
        if not isinstance(longest, int | float) or longest < 1:
            raise InvalidCheckpoint(f"{name}: model_max_length={longest!r} must be 1 or more")
        known = module.config.vocab_size
        if len(tokenizer) > known:
            raise InvalidCheckpoint(
                f"{name}: has {len(tokenizer)} tokens, but its text encoder supports {known}"
            )

    @property
    def max_length(self) -> int:
        """Maximum number of tokens, limited by the tokenizer and the module's positions."""
        positions = getattr(self._module.config, "max_position_embeddings", None)
        length = int(self._tokenizer.model_max_length)
        return length if positions is None else min(length, positions)

    def tokenize(self, text: str, length: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, both [1, length], padded or cut to it."""
        ids, mask = self.tokens(text, length)
        return copied(ids, self._module.device), copied(mask, self._module.device)

    def tokens(self, text: str, length: int) -> tuple[Tensor, Tensor]:
        """Result of `tokenize`, on the CPU."""
        tokens = self._tokenizer(
            [text],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        # Tokenizers cut nothing if no more than their special tokens fit.
        return tokens.input_ids[:, :length], tokens.attention_mask[:, :length]

    def cut(self, text: str, syntax: PromptSyntax, length: int | None = None) -> Cut | None:
        """Return what is cut off; `length`: by default the longest. Only subclasses know a
        syntax."""
        longest = self.max_length if length is None else length
        return cut_within(self._tokenizer, text, text, longest)

    def __call__(
        self, text: str, length: int, *, masked: bool = False, hidden_states: bool = False
    ) -> Any:
        """Output of the module for `text`. Without `masked`, padding is attended to."""
        ids, mask = self.tokenize(text, length)
        return self.run(ids, mask, masked=masked, hidden_states=hidden_states)

    def run(
        self, ids: Tensor, mask: Tensor, *, masked: bool = False, hidden_states: bool = False
    ) -> Any:
        """Output of the module for the result of `tokenize`."""
        with torch.inference_mode():
            return self._module(
                ids, attention_mask=mask if masked else None, output_hidden_states=hidden_states
            )
