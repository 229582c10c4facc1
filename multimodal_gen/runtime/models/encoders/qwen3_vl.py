"""Encodes prompts, and images in them, to the hidden states of a Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.models.encoders.qwen import QwenEncoder


def without_last_norm(module: Any) -> Any:
    """Return a Qwen3-VL without its head, whose states are those before its last norm."""
    base = module.model
    base.language_model.norm = nn.Identity()
    return base


class Qwen3VLEncoder(QwenEncoder):
    """A tokenizer and its transformers module, with or without its head."""

    def __init__(self, tokenizer: Any, module: Any, image_processor: Any = None) -> None:
        super().__init__(tokenizer, module.base_model, image_processor)

    def require(self, layers: Sequence[int], width: int) -> None:
        """Raise InvalidCheckpoint unless the model has these layers, and states of this width."""
        config = self._module.config.text_config
        if not all(0 <= layer <= config.num_hidden_layers for layer in layers):
            raise InvalidCheckpoint(
                f"text_encoder: num_hidden_layers={config.num_hidden_layers}: the states after "
                f"layers {', '.join(map(str, layers))} are used"
            )
        if self.width != width:
            raise InvalidCheckpoint(
                f"text_encoder: hidden_size={self.width}, but the transformer takes {width}"
            )

    def tokens(self, text: str, longest: int | None = None) -> list[int]:
        """Ids of a text, cut at `longest`."""
        cut = {} if longest is None else {"truncation": True, "max_length": longest}
        ids: list[int] = self._tokenizer(text, **cut).input_ids
        return ids

    def tagged(self, text: str, pictures: Sequence[PIL.Image.Image]) -> tuple[Tensor, Tensor]:
        """States [1, T, D] of a text with images, like `with_pictures`, and which of its tokens are
        an image's, with the two around it: bool [T], on the CPU."""
        text, seen = self._showing(text, pictures)
        config = self._module.config
        of_images = (
            config.image_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        )
        ids = torch.tensor(self.tokens(text))
        return self._states(text, seen, None), torch.isin(ids, torch.tensor(of_images))

    def layers(self, ids: Sequence[int], layers: Sequence[int]) -> Tensor:
        """Hidden states [1, T, layers, D] at these indices (0: the embeddings)."""
        tokens = tensor_of([*ids], self._module.device)[None]
        with torch.inference_mode():
            output = self._module(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                output_hidden_states=True,
                use_cache=False,
            )
        return torch.stack([output.hidden_states[layer] for layer in layers], dim=2)

    def _places(self, ids: Tensor, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """The positions of tokens and of what they see, which the module would read back."""
        if not seen:
            return {}
        kinds = (ids == self._module.config.image_token_id).int()
        places, _ = self._module.get_rope_index(ids, kinds, image_grid_thw=seen["image_grid_thw"])
        return {"position_ids": places}
