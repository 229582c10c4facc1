"""Mistral 3 as an encoder."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.encoders.chat import ChatEncoder

_IMAGE_TOKEN = "[IMG]"
"""Place of an image in a chat; like the reference, a chat without images has none."""


class Mistral3Encoder(ChatEncoder):
    """The language model of a Mistral 3; prompts are messages of the user, after one of the
    `system`, and padded."""

    special = MappingProxyType({"add_special_tokens": False})

    def __init__(self, tokenizer: Any, module: Any, system: str) -> None:
        """Raises InvalidCheckpoint if tokenizer and module don't match."""
        super().__init__(tokenizer, module.base_model.language_model)
        self._system = system

    def chat(self, prompt: str, length: int) -> tuple[Tensor, Tensor]:
        chat = self._tokenizer.apply_chat_template(
            self._messages(prompt),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_dict=True,
            return_tensors="pt",
        )
        return chat["input_ids"], chat["attention_mask"]

    def framed(self, prompt: str) -> str:
        chat: str = self._tokenizer.apply_chat_template(self._messages(prompt), tokenize=False)
        return chat

    def _messages(self, prompt: str) -> list[dict[str, Any]]:
        prompt = prompt.replace(_IMAGE_TOKEN, "")
        return [_message("system", self._system), _message("user", prompt)]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
