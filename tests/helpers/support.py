"""For each family and task that the registry names, a small request that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import diffusers
from diffusers.pipelines.flux import pipeline_flux_kontext
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.messages.model_info import TaskName

Cell = tuple[str, TaskName]
"""A family and one of its tasks."""


COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "width": 96,
    "height": 64,
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "seed": 4,
}


@dataclass(frozen=True)
class Case:
    """A tiny checkpoint, and what is asked of it in diffusers' words."""

    checkpoint: str
    stock: Any = None
    """diffusers' class for the task, where it is not the checkpoint's own."""
    changes: dict[str, Any] = field(default_factory=dict)
    """To `COMMON`; None takes something out of it."""
    stock_call: dict[str, Any] = field(default_factory=dict)
    """What only diffusers has to be told."""

    patches: tuple[tuple[str, str, Any], ...] = ()
    """Names in modules that are something else meanwhile: a large constant, made small."""

    @property
    def call(self) -> dict[str, Any]:
        merged = COMMON | self.changes
        return {name: value for name, value in merged.items() if value is not None}


_PICTURE = {"image": picture(70, 90)}
_INPAINTING = {**_PICTURE, "mask_image": picture(50, 40, "L")}
_UNSIZED = {"image": picture(96, 64), "width": None, "height": None}
"""For classes that take the size from the picture alone."""
_STRENGTH = {"strength": 0.7}
_VIDEO = {"num_frames": 9, "max_sequence_length": 32}
_SMALL_AREA = 96 * 96
_AS_ASKED = {"use_resolution_binning": False, "clean_caption": False}


def _small_dimensions(_: int, ratio: float) -> Any:
    return calculate_dimensions(_SMALL_AREA, ratio)


CASES: dict[Cell, Case] = {
    ("flux", "text-to-image"): Case("flux-dev"),
    ("flux", "image-to-image"): Case(
        "flux-dev", diffusers.FluxImg2ImgPipeline, _PICTURE | _STRENGTH
    ),
    ("flux", "inpainting"): Case(
        "flux-dev", diffusers.FluxInpaintPipeline, _INPAINTING | _STRENGTH
    ),
    ("flux2", "text-to-image"): Case("flux2-klein-base"),
    ("flux2", "image-edit"): Case("flux2-klein", None, _PICTURE),
    ("flux2", "inpainting"): Case(
        "flux2-klein",
        diffusers.Flux2KleinInpaintPipeline,
        _INPAINTING | _STRENGTH | {"width": None, "height": None},
    ),
    ("z_image", "text-to-image"): Case("zimage"),
    ("z_image", "image-to-image"): Case(
        "zimage", diffusers.ZImageImg2ImgPipeline, {"image": picture(96, 64)} | _STRENGTH
    ),
    ("z_image", "inpainting"): Case(
        "zimage",
        diffusers.ZImageInpaintPipeline,
        {"image": picture(96, 64), "mask_image": picture(96, 64, "L")} | _STRENGTH,
    ),
    ("qwen_image", "text-to-image"): Case("qwenimage"),
    ("qwen_image", "image-to-image"): Case(
        "qwenimage", diffusers.QwenImageImg2ImgPipeline, _PICTURE | _STRENGTH
    ),
    ("qwen_image", "inpainting"): Case(
        "qwenimage", diffusers.QwenImageInpaintPipeline, _INPAINTING | _STRENGTH
    ),
    ("qwen_image_edit", "image-edit"): Case(
        "qwenimage-edit",
        changes={**_PICTURE, "guidance_scale": None},
        patches=(
            (pipeline_qwenimage_edit.__name__, "calculate_dimensions", _small_dimensions),
            (
                "multimodal_gen.runtime.pipelines.families.qwen_image_edit",
                "PICTURE_AREA",
                _SMALL_AREA,
            ),
        ),
    ),
    ("stable_diffusion_3", "text-to-image"): Case("sd3"),
    ("stable_diffusion_3", "image-to-image"): Case(
        "sd35", diffusers.StableDiffusion3Img2ImgPipeline, _PICTURE | _STRENGTH
    ),
    ("stable_diffusion_3", "inpainting"): Case(
        "sd35", diffusers.StableDiffusion3InpaintPipeline, _INPAINTING | _STRENGTH
    ),
    ("flux_fill", "inpainting"): Case("flux-fill", None, _INPAINTING),
    ("flux_kontext", "text-to-image"): Case("flux-kontext", stock_call={"max_area": 96 * 64}),
    ("flux_kontext", "image-edit"): Case(
        "flux-kontext",
        changes=_PICTURE,
        stock_call={"max_area": 96 * 64},
        patches=(
            (pipeline_flux_kontext.__name__, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64)]),
        ),
    ),
    ("stable_diffusion", "text-to-image"): Case("sd15"),
    ("stable_diffusion", "image-to-image"): Case(
        "sd15", diffusers.StableDiffusionImg2ImgPipeline, _UNSIZED | _STRENGTH
    ),
    ("stable_diffusion", "inpainting"): Case(
        "sd15", diffusers.StableDiffusionInpaintPipeline, _INPAINTING | _STRENGTH
    ),
    ("stable_diffusion_xl", "text-to-image"): Case("sdxl"),
    ("stable_diffusion_xl", "image-to-image"): Case(
        "sdxl", diffusers.StableDiffusionXLImg2ImgPipeline, _UNSIZED | _STRENGTH
    ),
    ("stable_diffusion_xl", "inpainting"): Case(
        "sdxl", diffusers.StableDiffusionXLInpaintPipeline, _INPAINTING | _STRENGTH
    ),
    ("pixart_sigma", "text-to-image"): Case("pixart-sigma", stock_call=_AS_ASKED),
    ("sana", "text-to-image"): Case("sana", stock_call=_AS_ASKED),
    ("hunyuan_video", "text-to-video"): Case("hunyuan-video", None, _VIDEO),
    ("ltx", "text-to-video"): Case("ltx", None, _VIDEO),
    ("ltx", "image-to-video"): Case("ltx", diffusers.LTXImageToVideoPipeline, _PICTURE | _VIDEO),
    ("cogvideox", "text-to-video"): Case("cogvideox", None, _VIDEO | {"max_sequence_length": 24}),
    ("fallback", "text-to-image"): Case("lumina2"),
    ("fallback", "text-to-video"): Case("latte", stock_call={"clean_caption": False}),
    ("wan", "text-to-video"): Case(
        "wan22", None, _VIDEO | {"negative_prompt": "", "guidance_scale_2": 3.0}
    ),
    ("wan_image_to_video", "image-to-video"): Case(
        "wan-i2v", None, _VIDEO | _PICTURE | {"negative_prompt": ""}
    ),
}
"""Of each cell one."""

CELLS: set[Cell] = {(family.name, task) for family in FAMILIES for task in family.tasks}
