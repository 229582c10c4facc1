"""Single files of every family with text encoders and VAE, as ComfyUI saves them."""

from __future__ import annotations

from pathlib import Path

from full_checkpoints import unet
from original_vaes import ORIGINAL_VAES
from single_files import COMFY, ORIGINAL, Tensors, prefixed, weights

ENCODERS = {
    "chroma": {"text_encoder": "t5xxl"},
    "cogvideox": {"text_encoder": "t5xxl"},
    "flux-dev": {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
    "flux2-klein": {"text_encoder": "qwen3_4b"},
    "flux2-dev": {"text_encoder": "mistral3_24b"},
    "hunyuan-video": {"text_encoder": "llama", "text_encoder_2": "clip_l"},
    "ltx": {"text_encoder": "t5xxl"},
    "ltx-0.9.1": {"text_encoder": "t5xxl"},
    "pixart-sigma": {"text_encoder": "t5xxl"},
    "qwenimage": {"text_encoder": "qwen25_7b"},
    "sana": {"text_encoder": "gemma2_2b"},
    "sd15": {"text_encoder": "clip_l"},
    "sd3": {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"},
    "sdxl": {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    "wan-vace": {"text_encoder": "umt5xxl"},
    "wan": {"text_encoder": "umt5xxl"},
    "wan-i2v": {"text_encoder": "umt5xxl"},
    "wan22-ti2v": {"text_encoder": "umt5xxl"},
    "zimage": {"text_encoder": "qwen3_4b"},
}
"""ComfyUI's names of each tiny checkpoint's text encoders."""


def whole_file(name: str, folder: Path) -> Tensors:
    """Denoiser, VAE and text encoders of a tiny checkpoint."""
    tensors = {
        **prefixed(_denoiser(name, folder), COMFY),
        **prefixed(ORIGINAL_VAES[name](folder), "vae."),
    }
    for component, theirs in ENCODERS[name].items():
        tensors |= prefixed(encoder(folder, component), f"text_encoders.{theirs}.transformer.")
    return tensors


def _denoiser(name: str, folder: Path) -> Tensors:
    if (folder / "unet").is_dir():
        return unet(folder)
    name = name.removesuffix("-0.9.1")
    return ORIGINAL[name](folder) if name in ORIGINAL else weights(folder)


def encoder(folder: Path, component: str) -> Tensors:
    """A text encoder under the names that published files have; transformers 5 leaves out their
    beginnings."""
    tensors = weights(folder, component)
    for mark, beginning in (
        ("embeddings.token_embedding.weight", "text_model."),
        ("embed_tokens.weight", "model."),
        ("embeddings.class_embedding", "vision_model."),
    ):
        if mark in tensors:
            return prefixed(tensors, beginning)
    return tensors
