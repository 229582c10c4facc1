"""The keywords of `DiffusionGenerator`, written by configs/write_types.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from multimodal_gen.configs.control.choice import ControlLike
from multimodal_gen.configs.lora.choice import LoraLike
from multimodal_gen.configs.second_pass import UpscaleLike
from multimodal_gen.configs.user_path import UserPath
from multimodal_gen.entrypoints.python.inputs import InputKeywords


class SamplingKeywords(InputKeywords, total=False):
    """Pictures, and the fields of SamplingParams except the prompt."""

    negative_prompt: str | None
    """What to avoid; only used with classifier-free guidance."""
    enhance_prompt: bool
    """Let a language model rewrite the prompt."""
    prompt_syntax: Literal["plain", "a1111", "comfyui"]
    """Prompt weights."""
    max_sequence_length: int | None
    """Length that prompts are padded or cut to (tokens)."""
    width: int | None
    """Width of the output (pixels)."""
    height: int | None
    """Height of the output (pixels)."""
    num_frames: int | None
    """Length of the video (frames)."""
    fps: int | None
    """Frame rate of the video (frames per second, 1 to 240)."""
    seed: int | None
    """Random seed; with several outputs, output j uses seed + j."""
    num_outputs_per_prompt: int
    """Number of outputs per prompt."""
    num_inference_steps: int | None
    """Denoising steps; more take longer and show more detail."""
    quality: Literal["exact", "high", "fast"]
    """exact, or faster with some steps extrapolated."""
    scheduler: str | None
    """Solver: euler, dpmpp_2m, …; `models` lists those that fit."""
    noise_schedule: str | None
    """Noise levels: karras, beta, …; `models` lists what fits."""
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None
    """Where the timesteps lie."""
    sigmas: Sequence[float]
    """Noise levels of the steps, falling, unshifted (0 to 1000)."""
    flow_shift: float | None
    """Shift of a flow schedule; larger: more on layout (0.01 to 100)."""
    decode_timestep: float | None
    """Noise level told to the decoder; LTX-Video: 0.05 (0 to 1)."""
    decode_noise_scale: float | None
    """Share of noise in the latents that are decoded (0 to 1)."""
    guidance_scale: float | None
    """Higher follows the prompt more closely (0 to 100)."""
    guidance_scale_2: float | None
    """Guidance scale of the second of two experts (0 to 100)."""
    true_cfg_scale: float | None
    """CFG scale of models that embed guidance_scale (0 to 100)."""
    audio_guidance_scale: float | None
    """guidance_scale of the sound (0 to 100)."""
    stg_scale: float | None
    """Guidance away from a skipped attention; 0: none (0 to 100)."""
    modality_scale: float | None
    """Guidance away from video and sound made apart; 1: none (0 to 100)."""
    guidance_rescale: float | None
    """Scales guided values back to their unguided spread (0 to 1)."""
    guidance_start: float
    """Share of steps before guidance (0 to 1)."""
    guidance_stop: float
    """Share of steps where guidance ends (0 to 1)."""
    guidance_method: Literal["cfg", "cfg_zero", "apg"]
    """Formula of guidance."""
    zero_init_steps: int | None
    """First steps that cfg_zero leaves out."""
    apg_eta: float
    """Share of guidance along the prediction (0 to 10)."""
    apg_norm: float
    """Longest that guidance may be; 0: any (0 to 10000)."""
    apg_momentum: float
    """Weight of the steps before (-1 to 1)."""
    image_path: UserPath | Sequence[UserPath] | None
    """Input images, in order."""
    last_image_path: UserPath | None
    """Last frame of the video."""
    mask_path: UserPath | None
    """Mask: white is repainted, black is kept."""
    image_use: Literal["frame", "reference"] | None
    """Role of the image in a video."""
    video_path: UserPath | None
    """Video to start from or to follow."""
    conditioning_scale: float | None
    """Weight of control video and references (0 to 10)."""
    strength: float | None
    """Share of the image to replace (more than 0 and at most 1)."""
    keep_unmasked: bool
    """Keep the image exactly where the mask is black; grey blends."""
    upscale: UpscaleLike | None
    """Larger result."""
    lora: LoraLike | Sequence[LoraLike]
    """LoRAs from --lora-dir."""
    control: ControlLike | Sequence[ControlLike]
    """Controls in --control-dir."""
    priority: Literal["low", "normal", "high"]
    """Urgency."""
    deadline_s: float | None
    """Time limit; refused if out of reach (seconds, 0.001 to 2592000)."""
