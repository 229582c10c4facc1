"""Modular pipelines of diffusers, made of the components of others."""

from typing import Any

import diffusers
from diffusers import ModularPipeline, SchedulerMixin

from ..case import STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import picture
from ..schedulers import FLUX_DEV
from .flux2 import flux2_klein_pipeline
from .z_image import SCHEDULER, z_image_pipeline


def modular(name: str, components: dict[str, Any]) -> ModularPipeline:
    """The pipeline class `name`, with these of its components."""
    kind = getattr(diffusers, f"{name}ModularPipeline")
    pipeline = kind(getattr(diffusers, kind.default_blocks_name)())
    own = pipeline.pretrained_component_names
    pipeline.update_components(**{key: each for key, each in components.items() if key in own})
    return pipeline


def z_image(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    return modular("ZImage", z_image_pipeline(scheduler, heads=heads).components)


def flux2_klein(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    stock = flux2_klein_pipeline(scheduler, heads=heads, is_distilled=True)
    return modular("Flux2Klein", stock.components)


_PICTURE = {"image": picture(96, 64)}
VARIANTS = {
    "modular-zimage": TinyCheckpoint(z_image, SCHEDULER),
    "modular-flux2-klein": TinyCheckpoint(flux2_klein, FLUX_DEV),
}
CASES = {
    ("modular", "text-to-image"): Case("modular-zimage"),
    ("modular", "image-to-image"): Case("modular-zimage", changes=_PICTURE | STRENGTH),
    ("modular", "image-edit"): Case(
        "modular-flux2-klein", changes={**_PICTURE, "guidance_scale": None}
    ),
}
