"""Runs other pipelines of diffusers, with their own pipeline class.

A fallback: requests share no batch and the model runs on one rank. Parameters and defaults come
from the signature of the class's call; the generated table says which classes run, and what
pictures they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from multimodal_gen.configs.families.components import ComponentSpec, Kind
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.library_pipelines import LIBRARY_TABLE
from multimodal_gen.messages.model_info import Defaults, Limits

_ROLES: Mapping[str, str] = {
    "diffusers": "transformer",
    "transformers": "text_encoder",
}
"""Usual names of the components of a kind."""


def _components() -> Iterator[tuple[str, ComponentSpec]]:
    """Component specs by name, one for each kind and library."""
    for kind, named in LIBRARY_TABLE.components.items():
        classes: dict[str, list[str]] = {}
        for each in named:
            library, _, name = each.partition(".")
            classes.setdefault(library, []).append(name)
        for library, names in classes.items():
            usual = library in ("diffusers", "transformers")
            called = _ROLES.get(kind, kind) if usual else f"{library}_{kind}"
            yield called, ComponentSpec(cast(Kind, kind), tuple(names), home=library)


FALLBACK = FamilyConfig(
    name="fallback",
    title="other pipelines of diffusers",
    pipeline_classes=tuple(LIBRARY_TABLE.pipelines),
    components=dict(_components()),
    refused_classes={
        name: f"not supported: {reason}" for name, reason in LIBRARY_TABLE.refused.items()
    },
    unused=(
        ("deepfloyd_if", "IFSafetyChecker"),
        ("deepfloyd_if", "IFWatermarker"),
        ("ideogram4", "Ideogram4PromptEnhancerHead"),
        ("ltx2", "LTX2DurationHead"),
    ),
    tasks=(
        "text-to-image",
        "image-to-image",
        "inpainting",
        "image-edit",
        "text-to-video",
        "image-to-video",
        "video-to-video",
    ),
    parameters=(
        "num_frames",
        "fps",
        "guidance_scale_2",
        "true_cfg_scale",
        "guidance_rescale",
        "max_sequence_length",
        "decode_timestep",
        "decode_noise_scale",
    ),
    size_multiple=16,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=50),
    limits=Limits(max_frames=257, max_sequence_length=4096),
    views=(),
    step_caches={},
    denoiser="fallback",
    in_one_call=True,
)
"""Parameters and defaults here are used where a checkpoint's own class has none."""
