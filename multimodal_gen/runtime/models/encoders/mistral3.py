"""Mistral 3 as an encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.encoders.chat import ChatEncoder

_IMAGE_TOKEN = "[IMG]"
"""Place of an image in a chat; like the reference, a chat without images has none."""


class Mistral3Encoder(ChatEncoder):
    """The language model of a Mistral 3; prompts are messages of the user, after one of the
    `system`, and padded."""

    def __init__(self, tokenizer: Any, module: Any, system: str) -> None:
        """Raises InvalidCheckpoint if tokenizer and module don't match."""
        super().__init__(tokenizer, module.base_model.language_model)
        self._system = system

    def chat(self, prompt: str, length: int) -> tuple[Tensor, Tensor]:
        prompt = prompt.replace(_IMAGE_TOKEN, "")
        chat = self._tokenizer.apply_chat_template(
            [_message("system", self._system), _message("user", prompt)],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_dict=True,
            return_tensors="pt",
        )
        return chat["input_ids"], chat["attention_mask"]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
