"""Accounts of use: what the outputs of a request cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from multimodal_gen.client.request_handle import Output
from multimodal_gen.messages.request import Req

TOKEN_SIDE = 16
"""Pixels a side of what counts as one token of an image or frame, whatever the model."""


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a request's outputs, in tokens as OpenAI's clients know them and in our unit
    of work."""

    text_tokens: int
    """Of each of its prompts once, as the engine counts them."""
    picture_tokens: int
    """Of its input images, masks and videos."""
    output_tokens: int
    """Of all images and frames that it made."""
    megapixel_steps: float
    """Megapixels of each output, times the evaluations that ran the denoiser for it."""

    @classmethod
    def of(cls, requests: Sequence[Req], outputs: Sequence[Output]) -> RequestUsage:
        """Sum up `outputs` of `requests`, in the same order; inputs count once."""
        costs = [output.usage for output in outputs]
        prompts = {
            (req.params.prompt, req.params.negative_prompt): cost.prompt_tokens
            for req, cost in zip(requests, costs, strict=True)
            if cost is not None
        }
        pictures = requests[0].pictures.values() if requests else ()
        steps = sum(cost.megapixel_steps for cost in costs if cost is not None)
        return cls(
            text_tokens=sum(prompts.values()),
            picture_tokens=sum(_tokens(header.shape) for header in pictures),
            output_tokens=sum(_tokens(output.pixels.shape) for output in outputs),
            megapixel_steps=round(steps, 6),
        )

    def described(self) -> dict[str, Any]:
        """Return OpenAI's `usage` object, with ours."""
        given = self.text_tokens + self.picture_tokens
        return {
            "input_tokens": given,
            "input_tokens_details": {
                "image_tokens": self.picture_tokens,
                "text_tokens": self.text_tokens,
            },
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"image_tokens": self.output_tokens, "text_tokens": 0},
            "total_tokens": given + self.output_tokens,
            "megapixel_steps": self.megapixel_steps,
        }


def _tokens(shape: Sequence[int]) -> int:
    """Tokens of pixels [..., H, W, 3], or of a mask [H, W]; a started token counts as one."""
    *frames, height, width = shape[:-1] if len(shape) > 2 else shape
    return math.prod(frames) * -(-height // TOKEN_SIDE) * -(-width // TOKEN_SIDE)
