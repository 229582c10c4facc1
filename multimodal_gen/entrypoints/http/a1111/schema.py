"""Request bodies of `/sdapi/v1`, with the supported subset of their many keys.

Clients send keys of every version and extension, and null for unset values; unknown keys are
ignored.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

_NOT_REPEATED = {
    "init_images",
    "mask",
    "infotext",
    "override_settings",
    "enable_hr",
    "restore_faces",
    "tiling",
    "subseed_strength",
    "styles",
    "script_name",
    "resize_mode",
}


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Generation(Body):
    """Common fields of txt2img and img2img. Unset fields take the model's default."""

    prompt: str | None = None
    """May contain LoRAs: `<lora:NAME:SCALE>`."""
    negative_prompt: str | None = None
    seed: int | None = None
    """Negative: random."""
    batch_size: int | None = None
    n_iter: int | None = None
    """Number of batches; all are made at once."""
    steps: int | None = None
    cfg_scale: int | float | None = None
    distilled_cfg_scale: int | float | None = None
    """For models with guidance as an input: that guidance; cfg_scale is then classifier-free
    guidance."""
    width: int | None = None
    height: int | None = None
    sampler_name: str | None = None
    sampler_index: str | int | None = None
    scheduler: str | None = None
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = None
    infotext: str | None = None
    """Source of values that the body omits."""

    max_sequence_length: int | None = None
    flow_shift: int | float | None = None

    enable_hr: Any = None
    restore_faces: Any = None
    tiling: Any = None
    subseed_strength: Any = None
    styles: Any = None
    script_name: Any = None

    def echo(self) -> dict[str, Any]:
        """Parts of the request that the reply repeats."""
        return self.model_dump(exclude=_NOT_REPEATED)

    def count(self) -> int:
        """Number of images."""
        batch_size = 1 if self.batch_size is None else self.batch_size
        return batch_size * (1 if self.n_iter is None else self.n_iter)


class TextToImage(Generation):
    """Body of `POST /txt2img`."""


class ImageToImage(Generation):
    """Body of `POST /img2img`."""

    init_images: list[str] | None = None
    """One image: base64, or a data URL."""
    mask: str | None = None
    """White areas change; in a mask with transparency, opaque ones."""
    inpainting_mask_invert: int | bool | None = None
    mask_blur: int | float | None = None
    """Standard deviation in pixels, for both axes."""
    mask_blur_x: int | float | None = None
    mask_blur_y: int | float | None = None
    denoising_strength: int | float | None = None
    resize_mode: Any = None


class PictureBody(Body):
    """Body of `POST /png-info`."""

    image: str
