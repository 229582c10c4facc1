"""Wan 2.1 and 2.2 image-to-video: the image is the first frame, and another may be the last."""

import msgspec

from multimodal_gen.configs.families.components import (
    CLIP_IMAGE_PROCESSORS,
    encoder,
    image_processor,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.families.wan import (
    DEFAULTS,
    DIFFUSERS_KEYS,
    LIMITS,
    NOT_WAN,
    ORIGINAL_KEYS,
    PARAMETERS,
    WAN,
)
from multimodal_gen.configs.solvers import View

_PICTURE = {"patch_embedding.weight": (None, 36)}
"""Latents, the image's latents, and a mask of its frame."""
_EXPERTS = BaseModel("Wan-AI/Wan2.2-I2V-A14B-Diffusers")

_FIRST_AND_LAST = "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"


def _clip(key: str) -> BaseModel:
    return BaseModel("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", {key: ()})


_SINGLE_FILES = (
    SingleFile(
        denoiser="WanTransformer3DModel",
        style="original",
        keys=ORIGINAL_KEYS,
        has=_PICTURE,
        without=NOT_WAN,
        bases=(
            BaseModel(_FIRST_AND_LAST, {"img_emb.emb_pos": ()}),
            _clip("img_emb.proj.0.weight"),
            _EXPERTS,
        ),
    ),
    SingleFile(
        denoiser="WanTransformer3DModel",
        style="diffusers",
        keys=DIFFUSERS_KEYS,
        without=NOT_WAN,
        has=_PICTURE,
        bases=(
            BaseModel(_FIRST_AND_LAST, {"condition_embedder.image_embedder.pos_embed": ()}),
            _clip("condition_embedder.image_embedder.norm1.weight"),
            _EXPERTS,
        ),
    ),
)

WAN_IMAGE_TO_VIDEO = FamilyConfig(
    name="wan_image_to_video",
    title="Wan 2.1 and 2.2 image-to-video",
    pipeline_classes=("WanImageToVideoPipeline",),
    components={
        **WAN.components,
        "image_processor": image_processor(*CLIP_IMAGE_PROCESSORS, optional=True),
        "image_encoder": encoder("CLIPVisionModel", "CLIPVisionModelWithProjection", optional=True),
    },
    tasks=("image-to-video",),
    parameters=(*PARAMETERS, "last_image_path"),
    size_multiple=16,
    defaults=DEFAULTS,
    limits=LIMITS,
    frame_multiple=4,
    picture_size="area",
    views=(View.FLOW,),
    own_solver="unipc",
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

IMAGE_EXPERTS_DEFAULTS = msgspec.structs.replace(
    DEFAULTS, num_inference_steps=40, guidance_scale=3.5
)
"""Defaults of Wan 2.2 A14B; the second expert uses the first's guidance."""

LAST_FRAME_DEFAULTS = msgspec.structs.replace(DEFAULTS, width=1280, height=720, guidance_scale=5.5)
"""Defaults of Wan 2.1 FLF2V."""
