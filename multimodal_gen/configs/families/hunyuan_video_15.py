"""HunyuanVideo 1.5: videos of texts, or of a first frame, with a language model as encoder."""

from multimodal_gen.configs.families.components import (
    QWEN_TOKENIZERS,
    encoder,
    image_processor,
    module,
    tokenizer,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

HUNYUAN_VIDEO_15 = FamilyConfig(
    name="hunyuan_video_15",
    title="HunyuanVideo 1.5",
    pipeline_classes=("HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"),
    components={
        "tokenizer": tokenizer(*QWEN_TOKENIZERS),
        "tokenizer_2": tokenizer("ByT5Tokenizer"),
        "feature_extractor": image_processor(
            "SiglipImageProcessor",
            "SiglipImageProcessorFast",
            "SiglipImageProcessorPil",
            optional=True,
        ),
        "text_encoder": encoder("Qwen2_5_VLTextModel"),
        "text_encoder_2": encoder("T5EncoderModel"),
        "image_encoder": encoder("SiglipVisionModel", optional=True),
        "transformer": module("HunyuanVideo15Transformer3DModel"),
        "vae": module("AutoencoderKLHunyuanVideo15"),
    },
    tasks=("text-to-video", "image-to-video"),
    parameters=("num_frames", "fps", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=848, height=480, num_frames=121, fps=24, num_inference_steps=50, guidance_scale=6.0
    ),
    limits=Limits(max_frames=241),
    frame_multiple=4,
    views=(View.FLOW,),
)
