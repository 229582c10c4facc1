"""HiDream-I1: experts for each token, and four text encoders, one of them a whole Llama."""

from multimodal_gen.configs.families.components import (
    CLIP_TOKENIZERS,
    HEAD,
    LLAMA_TOKENIZERS,
    T5_TOKENIZERS,
    encoder,
    module,
    tokenizer,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

HIDREAM = FamilyConfig(
    name="hidream",
    title="HiDream-I1",
    pipeline_classes=("HiDreamImagePipeline",),
    components={
        "tokenizer": tokenizer(*CLIP_TOKENIZERS),
        "tokenizer_2": tokenizer(*CLIP_TOKENIZERS),
        "tokenizer_3": tokenizer(*T5_TOKENIZERS),
        "tokenizer_4": tokenizer(*LLAMA_TOKENIZERS),
        "text_encoder": encoder("CLIPTextModelWithProjection"),
        "text_encoder_2": encoder("CLIPTextModelWithProjection"),
        "text_encoder_3": encoder("T5EncoderModel"),
        "text_encoder_4": encoder("LlamaForCausalLM", idle=(HEAD,)),
        "transformer": module("HiDreamImageTransformer2DModel"),
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image",),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=50,
        guidance_scale=5.0,
        max_sequence_length=128,
    ),
    limits=Limits(max_sequence_length=218),
    views=(View.FLOW,),
)
