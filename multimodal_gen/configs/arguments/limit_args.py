"""Arguments that limit what clients can ask for and send."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.configs.step_cache import Quality


@dataclass(frozen=True, kw_only=True)
class LimitArgs(ArgumentGroup):
    max_pixels: int | None = None
    """Maximum pixels of an image or video frame. Default: the model's limit."""
    max_frames: int | None = None
    """Maximum number of frames of a video. Default: the model's limit."""
    max_steps: int | None = None
    """Maximum num_inference_steps. Default: the model's limit."""
    min_quality: Quality = "fast"
    """Lowest `quality` that requests may ask for: exact, high or fast."""
    max_request_s: float | None = None
    """Maximum seconds from acceptance to the end of a request. Default: no limit."""
    max_evaluation_s: float | None = None
    """Maximum predicted seconds of one evaluation (step): within one, no other request runs, and
    cancelling has no effect. Larger sizes and longer videos are refused, with what fits. 0: no
    limit. Default: 30 with several keys or on a GPU, else no limit."""
    max_body_bytes: int = 64 * 2**20
    """Maximum size of an HTTP request body, in bytes; all together have 8 times as many."""
    max_input_pixels: int = 50_000_000
    """Maximum pixels of an image that a client sends; all together have 32 bytes per pixel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1(
            "max_pixels", "max_frames", "max_steps", "max_body_bytes", "max_input_pixels"
        )
        self.require_seconds("max_request_s")
        self.require_from_0("max_evaluation_s")
