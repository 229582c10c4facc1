"""Qwen3 as an encoder: prompts, as user messages of a chat, to hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.encoders.text import TextEncoder


class Qwen3Encoder(TextEncoder):
    """A tokenizer with a chat template, and a Qwen3 model with or without its head."""

    def __init__(self, tokenizer: Any, module: Any) -> None:
        """Raises InvalidCheckpoint if the two don't match."""
        super().__init__(tokenizer, module.base_model)
        if tokenizer is not None and tokenizer.chat_template is None:
            raise InvalidCheckpoint("tokenizer: has no chat_template")

    def require_layers(self, layers: int) -> None:
        """Raise InvalidCheckpoint unless the model has this many layers."""
        found = self._module.config.num_hidden_layers
        if found < layers:
            raise InvalidCheckpoint(
                f"text_encoder: num_hidden_layers={found}: the states after layer {layers} are used"
            )

    def states(
        self, prompt: str, length: int, layers: Sequence[int], *, thinking: bool, padded: bool
    ) -> list[Tensor]:
        """Hidden states [1, S, D] at the indices `layers` (0: the embeddings).

        The chat is cut at `length` tokens, or `padded` to that length; padding attends to the text
        before it. `thinking` leaves the answer, which is never generated, open for thoughts.
        """
        chat = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        ids, mask = self.tokens(chat, length)
        if not padded:  # later tokens don't change earlier ones
            ids, mask = ids[:, mask[0].bool()], mask[:, mask[0].bool()]
        device = self._module.device
        with torch.inference_mode():
            output = self._module(
                copied(ids, device),
                attention_mask=copied(mask, device),
                output_hidden_states=True,
                use_cache=False,
            )
        return [output.hidden_states[layer] for layer in layers]
