"""Wan 2.1 text-to-video."""

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits

WAN = FamilyConfig(
    name="wan",
    title="Wan 2.1 text-to-video",
    pipeline_classes=("WanPipeline",),
    tasks=("text-to-video",),
    parameters=("num_frames", "fps", "flow_shift", "max_sequence_length"),
    size_multiple=16,
    defaults=Defaults(
        width=832,
        height=480,
        num_frames=81,
        fps=16,
        num_inference_steps=50,
        guidance_scale=5.0,
        max_sequence_length=512,
    ),
    limits=Limits(max_pixels=1280 * 1280, max_frames=241, max_sequence_length=512),
    frame_multiple=4,
    schedulers=("unipc", "flow_euler", "flow_heun"),
)
