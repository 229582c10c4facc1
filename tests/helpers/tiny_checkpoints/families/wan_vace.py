"""Wan VACE: a control stream beside some of Wan's blocks."""

from functools import partial
from typing import Any

from diffusers import SchedulerMixin, WanVACEPipeline, WanVACETransformer3DModel

from ..case import VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import clip, picture
from .wan import SCHEDULER, components, sizes


def wan_vace_pipeline(scheduler: SchedulerMixin, *, heads: int, **options: Any) -> WanVACEPipeline:
    parts = components(scheduler, heads)
    parts["transformer"] = _transformer(heads, [0, 2])
    if "boundary_ratio" in options:
        parts["transformer_2"] = _transformer(heads, [0, 1])
    return WanVACEPipeline(**parts, **options)


def _transformer(heads: int, layers: list[int]) -> WanVACETransformer3DModel:
    own = {"num_layers": 3, "vace_layers": layers, "vace_in_channels": 96}
    return WanVACETransformer3DModel(**sizes(heads) | own)


CHECKPOINTS = {"wan-vace": TinyCheckpoint(wan_vace_pipeline, SCHEDULER, call={"num_frames": 5})}
VARIANTS = {
    "wan22-vace": TinyCheckpoint(partial(wan_vace_pipeline, boundary_ratio=0.875), SCHEDULER)
}
_CALL: dict[str, Any] = VIDEO | {"negative_prompt": ""}
_CONTROLLED = {"video": clip(9, 96, 64), "mask": [picture(50, 40, "L")] * 9}
_REFERENCES = {"reference_images": [picture(70, 90), picture(64, 40, "L").convert("RGB")]}
CASES = {
    ("wan_vace", "text-to-video"): Case("wan-vace", changes=_CALL),
    ("wan_vace", "video-to-video"): Case("wan-vace", changes=_CALL | _CONTROLLED),
    ("wan_vace", "reference-to-video"): Case(
        "wan-vace", changes=_CALL | _REFERENCES | {"conditioning_scale": 0.7}
    ),
}
