"""Qwen-Image and Qwen-Image-Edit: a Qwen2.5-VL, a video VAE of one frame, two streams a block."""

import re
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    QwenImageEditInpaintPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SchedulerMixin,
)
from diffusers.pipelines.qwenimage import (
    pipeline_qwenimage_edit_inpaint,
    pipeline_qwenimage_edit_plus,
)
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from tokenizers import pre_tokenizers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from ..case import INPAINTING, PICTURE, PICTURES, STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..schedulers import FLUX_DEV, Config
from ..tokenizers import WORDS

SCHEDULER: Config = {
    **FLUX_DEV,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
}

HEAD_DIM = 16
LATENT_CHANNELS = 4
PATCH = 8
"""Pixels along each side of a patch that the language model sees."""
_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_SPACE = "Ġ"  # byte-level BPE's stand-in for a space


def qwen_image_pipeline(scheduler: SchedulerMixin, *, heads: int) -> QwenImagePipeline:
    return QwenImagePipeline(
        scheduler=scheduler,
        vae=qwen_image_vae(False, True, True, base_dim=4, dim_mult=[1, 2, 2, 2]),
        text_encoder=qwen2_5_vl(),
        tokenizer=qwen2_tokenizer(),
        transformer=_transformer(heads),
    )


def qwen_image_edit_pipeline(
    scheduler: SchedulerMixin, *, heads: int, plus: bool = False
) -> DiffusionPipeline:
    """The pictures that it is given have 1024 x 1024 pixels whatever the output has, so a VAE of 16
    pixels a latent keeps the sequence short. `plus` is like Qwen-Image-Edit-2511."""
    kind = QwenImageEditPlusPipeline if plus else QwenImageEditPipeline
    return kind(
        scheduler=scheduler,
        vae=qwen_image_vae(False, True, True, True, base_dim=2, dim_mult=[1, 2, 4, 4, 4]),
        text_encoder=qwen2_5_vl(),
        tokenizer=qwen2_tokenizer(),
        processor=PictureProcessor(
            image_processor=Qwen2VLImageProcessorPil(
                size={"shortest_edge": 16 * PATCH**2, "longest_edge": 60 * PATCH**2},
                patch_size=PATCH,
            ),
            tokenizer=qwen2_tokenizer(),
        ),
        transformer=_transformer(heads, zero_cond_t=plus),
    )


class PictureProcessor(Qwen2VLProcessor):
    """Without its part for videos, which can't be made where there is no torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def picture_processor(folder: Path) -> PictureProcessor:
    """The processor that was saved in `folder`."""
    return PictureProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder),
        tokenizer=Qwen2Tokenizer.from_pretrained(folder),
    )


def _transformer(heads: int, **config: Any) -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=heads,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        **config,
    )


def qwen_image_vae(*temperal_downsample: bool, **config: Any) -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        z_dim=LATENT_CHANNELS,
        num_res_blocks=1,
        temperal_downsample=temperal_downsample,
        latents_mean=[-0.7, 0.1, 0.9, 0.4],
        latents_std=[2.8, 1.4, 2.3, 1.1],
        **config,
    )


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    tokenizer = qwen2_tokenizer()
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "bos_token_id": None,
                "eos_token_id": None,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000000.0,
                    "mrope_section": [2, 3, 3],
                },
            },
            vision_config={
                "depth": 2,
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "num_heads": 2,
                "patch_size": PATCH,
                "out_hidden_size": WIDTH,
                "window_size": 4 * PATCH,
                "fullatt_block_indexes": [1],
            },
            **ids,
        )
    )


def qwen2_tokenizer() -> Qwen2Tokenizer:
    """Byte-level BPE; the templates of Qwen-Image are 34 and 64 tokens before the prompt."""
    words = re.findall(r" ?\w+", f"{_templates()} {' '.join(WORDS)}")
    texts = [*(word.replace(" ", _SPACE) for word in words), f"{_SPACE}(", "),", "'s"]
    with_space_first = sorted(dict.fromkeys(texts), key=lambda word: not word.startswith(_SPACE))
    merges: Any = list(
        dict.fromkeys(
            (word[:end], word[end]) for word in with_space_first for end in range(1, len(word))
        )
    )
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [left + right for left, right in merges]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    tokenizer.add_tokens([*_SPECIALS], special_tokens=True)
    return tokenizer


def _templates() -> str:
    """What the stock pipelines write around a prompt."""
    kinds = ((QwenImagePipeline, 5), (QwenImageEditPipeline, 6), (QwenImageEditPlusPipeline, 6))
    return " ".join(kind(*[None] * count).prompt_template_encode for kind, count in kinds)


_SMALL_AREA = 96 * 96
_OURS = "multimodal_gen.runtime.pipelines.families.qwen_image_edit"


def _small_dimensions(_: int, ratio: float) -> Any:
    return calculate_dimensions(_SMALL_AREA, ratio)


def _small_dimensions_of_three(area: int, ratio: float) -> Any:
    return (*_small_dimensions(area, ratio), None)


CHECKPOINTS = {
    "qwenimage": TinyCheckpoint(
        qwen_image_pipeline, SCHEDULER, ("prompt", "seed", "steps", "true guidance")
    ),
}
VARIANTS = {
    "qwenimage-edit": TinyCheckpoint(qwen_image_edit_pipeline, SCHEDULER),
    "qwenimage-edit-plus": TinyCheckpoint(partial(qwen_image_edit_pipeline, plus=True), SCHEDULER),
}
CASES = {
    ("qwen_image", "text-to-image"): Case("qwenimage"),
    ("qwen_image", "image-to-image"): Case(
        "qwenimage", QwenImageImg2ImgPipeline, PICTURE | STRENGTH
    ),
    ("qwen_image", "inpainting"): Case(
        "qwenimage", QwenImageInpaintPipeline, INPAINTING | STRENGTH
    ),
    ("qwen_image_edit", "image-edit"): Case(
        "qwenimage-edit-plus",
        changes={**PICTURES, "guidance_scale": None},
        patches=(
            (pipeline_qwenimage_edit_plus.__name__, "calculate_dimensions", _small_dimensions),
            *((_OURS, name, _SMALL_AREA) for name in ("PICTURE_AREA", "SEEN_BY_PLUS")),
        ),
    ),
    ("qwen_image_edit", "inpainting"): Case(
        "qwenimage-edit",
        QwenImageEditInpaintPipeline,
        INPAINTING
        | STRENGTH
        | {
            "image": picture(150, 100),
            "width": 128,
            "guidance_scale": None,
            "negative_prompt": "blurry",
            "true_cfg_scale": 3.0,
        },
        patches=(
            (
                pipeline_qwenimage_edit_inpaint.__name__,
                "calculate_dimensions",
                _small_dimensions_of_three,
            ),
            (_OURS, "PICTURE_AREA", _SMALL_AREA),
        ),
    ),
}
