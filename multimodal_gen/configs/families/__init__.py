"""What is known of each model family before any weight is loaded. No torch here."""

from multimodal_gen.configs.families.cogvideox import COGVIDEOX
from multimodal_gen.configs.families.fallback import FALLBACK
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.flux import FLUX
from multimodal_gen.configs.families.flux2 import FLUX2
from multimodal_gen.configs.families.flux_fill import FLUX_FILL
from multimodal_gen.configs.families.flux_kontext import FLUX_KONTEXT
from multimodal_gen.configs.families.hunyuan_video import HUNYUAN_VIDEO
from multimodal_gen.configs.families.ltx import LTX
from multimodal_gen.configs.families.pixart_sigma import PIXART_SIGMA
from multimodal_gen.configs.families.qwen_image import QWEN_IMAGE
from multimodal_gen.configs.families.qwen_image_edit import QWEN_IMAGE_EDIT
from multimodal_gen.configs.families.sana import SANA
from multimodal_gen.configs.families.stable_diffusion import STABLE_DIFFUSION
from multimodal_gen.configs.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from multimodal_gen.configs.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from multimodal_gen.configs.families.wan import WAN
from multimodal_gen.configs.families.wan_image_to_video import WAN_IMAGE_TO_VIDEO
from multimodal_gen.configs.families.z_image import Z_IMAGE
from multimodal_gen.errors import InvalidCheckpoint

__all__ = ["FAMILIES", "FamilyConfig", "family_named"]

FAMILIES: tuple[FamilyConfig, ...] = (
    FLUX,
    FLUX_KONTEXT,
    FLUX_FILL,
    FLUX2,
    Z_IMAGE,
    QWEN_IMAGE,
    QWEN_IMAGE_EDIT,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    WAN,
    WAN_IMAGE_TO_VIDEO,
    PIXART_SIGMA,
    SANA,
    HUNYUAN_VIDEO,
    LTX,
    COGVIDEOX,
    FALLBACK,
)


def family_named(pipeline_class: str) -> FamilyConfig:
    """The family that this class in model_index.json belongs to. Raises InvalidCheckpoint."""
    for family in FAMILIES:
        if pipeline_class in family.pipeline_classes:
            return family
        if pipeline_class in family.refused_classes:
            reason = family.refused_classes[pipeline_class]
            raise InvalidCheckpoint(f"model_index.json: {pipeline_class}: {reason}")
    known = ", ".join(name for family in FAMILIES for name in family.pipeline_classes)
    raise InvalidCheckpoint(
        f"model_index.json: _class_name={pipeline_class!r} is not known; known are {known}"
    )
