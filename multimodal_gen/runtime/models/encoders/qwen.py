"""Encodes prompts and images to the hidden states of a Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied

IMAGE_TOKEN = "<|image_pad|>"


class QwenEncoder:
    """A tokenizer and its transformers module; `image_processor` for images."""

    def __init__(self, tokenizer: Any, module: Any, image_processor: Any = None) -> None:
        """Raises InvalidCheckpoint if they don't match. The tokenizer is None on a rank that does
        not encode."""
        self._tokenizer = tokenizer
        self._module = module
        self._image_processor = image_processor
        known = module.get_input_embeddings().num_embeddings
        if tokenizer is not None and len(tokenizer) > known:
            raise InvalidCheckpoint(
                f"tokenizer: has {len(tokenizer)} tokens, but its text encoder supports {known}"
            )
        if image_processor is not None:
            self._check_patches(module.config.vision_config)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return int(self._module.get_input_embeddings().embedding_dim)

    def _check_patches(self, vision: Any) -> None:
        named = {"merge_size": "spatial_merge_size"}
        for name in ("patch_size", "temporal_patch_size", "merge_size"):
            ours, theirs = (
                getattr(self._image_processor, name),
                getattr(vision, named.get(name, name)),
            )
            if ours != theirs:
                raise InvalidCheckpoint(
                    f"processor: {name}={ours} does not match the text encoder's {theirs}"
                )

    def __call__(self, text: str, max_tokens: int | None = None) -> Tensor:
        """States [1, T, D] of `text`, cut at `max_tokens`."""
        return self._states(text, {}, max_tokens)

    def with_pictures(self, text: str, pictures: Sequence[PIL.Image.Image]) -> Tensor:
        """States [1, T, D] of `text`, with the images in place of its IMAGE_TOKENs."""
        return self._states(*self._showing(text, pictures), None)

    def _showing(
        self, text: str, pictures: Sequence[PIL.Image.Image]
    ) -> tuple[str, dict[str, Tensor]]:
        """The text with as many IMAGE_TOKENs as the images need, and arguments of the module for
        the images."""
        if not pictures:
            return text, {}
        seen = dict(self._image_processor(images=[*pictures], return_tensors="pt"))
        patches = seen["image_grid_thw"].prod(dim=1) // self._image_processor.merge_size**2
        before, *after = text.split(IMAGE_TOKEN)
        counted = zip(patches.tolist(), after, strict=True)
        text = before + "".join(IMAGE_TOKEN * tokens + rest for tokens, rest in counted)
        seen["pixel_values"] = seen["pixel_values"].to(self._module.dtype)
        return text, seen

    def _states(self, text: str, seen: dict[str, Tensor], max_tokens: int | None) -> Tensor:
        tokens = self._tokenizer(
            [text],
            truncation=max_tokens is not None,
            max_length=max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = self._module.device
        told = {**seen, **self._places(tokens.input_ids, seen)}
        with torch.inference_mode():
            output = self._module(
                input_ids=copied(tokens.input_ids, device),
                attention_mask=copied(tokens.attention_mask, device),
                use_cache=False,
                **{name: copied(tensor, device) for name, tensor in told.items()},
            )
        states: Tensor = output.last_hidden_state
        return states

    def _places(self, ids: Tensor, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Further arguments of the module for token ids [1, T] and images, on the CPU."""
        return {}
