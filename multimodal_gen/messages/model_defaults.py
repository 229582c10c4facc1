"""The defaults of a model, written by configs/write_types.py."""

from __future__ import annotations

import msgspec


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's defaults for unset sampling parameters. None: there is no default."""

    negative_prompt: str | None = None
    max_sequence_length: int | None = None
    width: int
    height: int
    num_frames: int = 1
    fps: int | None = None
    num_inference_steps: int
    flow_shift: float | None = None
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    guidance_scale: float = 1.0
    guidance_scale_2: float | None = None
    true_cfg_scale: float | None = None
    audio_guidance_scale: float | None = None
    stg_scale: float | None = None
    modality_scale: float | None = None
    guidance_rescale: float | None = None
    conditioning_scale: float | None = None
    strength: float | None = None
    inpainting_strength: float | None = None
    """Default of strength for a request with a mask."""
