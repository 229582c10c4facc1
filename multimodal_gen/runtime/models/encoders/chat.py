"""Language models as encoders: prompts, as messages of a chat, to hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.prompts.grammar import PromptSyntax
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.encoders.cutting import Cut, cut_within
from multimodal_gen.runtime.models.encoders.text import TextEncoder


class ChatEncoder(TextEncoder, ABC):
    """A tokenizer with a chat template, and a language model without its head."""

    def __init__(self, tokenizer: Any, module: Any) -> None:
        """Raises InvalidCheckpoint if the two don't match."""
        super().__init__(tokenizer, module)
        if tokenizer is not None and tokenizer.chat_template is None:
            raise InvalidCheckpoint("tokenizer: has no chat_template")

    def require_layers(self, layers: int) -> None:
        """Raise InvalidCheckpoint unless the model has this many layers."""
        found = self._module.config.num_hidden_layers
        if found < layers:
            raise InvalidCheckpoint(
                f"text_encoder: num_hidden_layers={found}: the states after layer {layers} are used"
            )

    @abstractmethod
    def chat(self, prompt: str, length: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask [1, S] of the prompt's chat, of at most `length` tokens."""

    @abstractmethod
    def framed(self, prompt: str) -> str:
        """The prompt's chat as text."""

    def cut(self, text: str, syntax: PromptSyntax, length: int | None = None) -> Cut | None:
        assert length is not None
        return cut_within(self._tokenizer, self.framed(text), text, length, **self.special)

    special: ClassVar[Mapping[str, bool]] = {}
    """Option of the tokenizer for chats."""

    def states(self, prompt: str, length: int, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states [1, S, D] of a prompt's chat at the indices `layers` (0: the
        embeddings)."""
        ids, mask = self.chat(prompt, length)
        device = self._module.device
        with torch.inference_mode():
            output = self._module(
                copied(ids, device),
                attention_mask=copied(mask, device),
                output_hidden_states=True,
                use_cache=False,
            )
        return [output.hidden_states[layer] for layer in layers]
