"""Request bodies of `/sdapi/v1`, with the supported subset of their many keys.

Clients send keys of every version and extension, and null for unset values. Keys that are not
declared here have no effect; see ignored.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from multimodal_gen.configs.prompts.grammar import PromptSyntax
from multimodal_gen.configs.step_cache import Quality

_NOT_REPEATED = {"init_images", "mask", "infotext", "override_settings", "alwayson_scripts"}


NAMES: Mapping[str, str] = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "true_cfg_scale": "cfg_scale",
    "strength": "denoising_strength",
    "image_path": "init_images",
    "mask_path": "mask",
    "upscale": "enable_hr",
    "control": "alwayson_scripts.controlnet",
}
"""Sampling parameters that bodies have by other names."""


class Body(BaseModel):
    model_config = ConfigDict(
        extra="ignore", protected_namespaces=(), use_attribute_docstrings=True
    )


class Generation(Body):
    """Common fields of txt2img and img2img. Unset fields take the model's default."""

    model_config = ConfigDict(extra="allow")

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
    """`sd_model_checkpoint`, `samples_format`, `jpeg_quality` and `skip_early_cond` are
    supported."""
    alwayson_scripts: dict[str, Any] | None = None
    """`controlnet` is supported, with finished pictures."""
    disable_extra_networks: bool | None = None
    """Ignore the LoRAs in the prompt."""
    eta: int | float | None = None
    """Only the solvers' own values are supported."""
    send_images: bool | None = None
    infotext: str | None = None
    """Source of values that the body omits."""

    skip_early_cond: int | float | None = None
    """The setting of that name, from an infotext."""
    prompt_syntax: PromptSyntax | None = None
    """Default: the web UI's."""
    max_sequence_length: int | None = None
    flow_shift: int | float | None = None
    quality: Quality | None = None
    """Default: exact."""

    def echo(self) -> dict[str, Any]:
        """Parts of the request that the reply repeats."""
        return self.model_dump(include=type(self).model_fields.keys() - _NOT_REPEATED)

    def count(self) -> int:
        """Number of images."""
        batch_size = 1 if self.batch_size is None else self.batch_size
        return batch_size * (1 if self.n_iter is None else self.n_iter)


class TextToImage(Generation):
    """Body of `POST /txt2img`."""

    enable_hr: int | bool | None = None
    """Generate once more from the enlarged result."""
    hr_scale: int | float | None = None
    hr_resize_x: int | None = None
    """Width of the result; overrules `hr_scale`. Other values than 0 for both sides must have the
    shape of the first pass."""
    hr_resize_y: int | None = None
    hr_upscaler: str | None = None
    """Lanczos is used for all."""
    hr_second_pass_steps: int | None = None
    """0: those of the first pass."""
    denoising_strength: int | float | None = None
    """Of the second pass."""


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
    inpainting_fill: int | None = None
    """What is under the mask: 0 colors from around it (default), 1 the image."""
    inpaint_full_res: int | bool | None = None
    """Generate only the region of the mask, at the full size (default)."""
    inpaint_full_res_padding: int | None = None
    """Pixels that the region includes around the mask."""
    resize_mode: int | None = None
    """0 stretch, 1 crop, 2 repeat the border."""
    include_init_images: bool | None = None

    @property
    def only_masked(self) -> bool:
        return bool(self.mask) and (self.inpaint_full_res is None or bool(self.inpaint_full_res))

    def echo(self) -> dict[str, Any]:
        images = {"init_images", "mask"} if self.include_init_images else set()
        return {**super().echo(), **self.model_dump(include=images)}


class PictureBody(Body):
    """Body of `POST /png-info`."""

    image: str
