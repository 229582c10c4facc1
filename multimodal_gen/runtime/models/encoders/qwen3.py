"""Qwen3 as an encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.encoders.chat import ChatEncoder


class Qwen3Encoder(ChatEncoder):
    """A Qwen3 model with or without its head; prompts are messages of the user.

    Chats are `padded` to their length, and padding attends to the text before it. `thinking` leaves
    the answer, which is never generated, open for thoughts.
    """

    def __init__(self, tokenizer: Any, module: Any, *, thinking: bool, padded: bool) -> None:
        """Raises InvalidCheckpoint if tokenizer and module don't match."""
        super().__init__(tokenizer, module.base_model)
        self._thinking = thinking
        self._padded = padded

    def chat(self, prompt: str, length: int) -> tuple[Tensor, Tensor]:
        ids, mask = self.tokens(self.framed(prompt), length)
        if self._padded:
            return ids, mask
        kept = mask[0].bool()  # later tokens don't change earlier ones
        return ids[:, kept], mask[:, kept]

    def framed(self, prompt: str) -> str:
        chat: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self._thinking,
        )
        return chat
