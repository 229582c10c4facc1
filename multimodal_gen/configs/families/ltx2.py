"""LTX-2 and 2.3: videos with their sound, from one model of both."""

import msgspec

from multimodal_gen.configs.families.components import (
    GEMMA_TOKENIZERS,
    HEAD,
    encoder,
    module,
    native,
    tokenizer,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import INTERVAL
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_HOME = "ltx2"
"""Folder of diffusers' pipelines that defines some of its models."""
SKIPPING_PARAMETER = "stg_scale"
"""For models that were trained to skip a self-attention."""

_CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")
"""Parts of another component, among the denoiser's: they are the base's."""
_SINGLE_FILES = (
    SingleFile(
        denoiser="LTX2VideoTransformer3DModel",
        style="original",
        keys=("audio_patchify_proj.weight", "av_ca_a2v_gate_adaln_single.linear.weight"),
        ignored=_CONNECTORS,
        bases=(
            BaseModel("diffusers/LTX-2.3-Diffusers", {"prompt_adaln_single.linear.weight": ()}),
            BaseModel("Lightricks/LTX-2"),
        ),
    ),
    SingleFile(
        denoiser="LTX2VideoTransformer3DModel",
        style="diffusers",
        keys=("audio_proj_in.weight", "av_cross_attn_video_a2v_gate.linear.weight"),
        bases=(
            BaseModel("diffusers/LTX-2.3-Diffusers", {"prompt_adaln.linear.weight": ()}),
            BaseModel("Lightricks/LTX-2"),
        ),
    ),
)

LTX2 = FamilyConfig(
    name="ltx2",
    title="LTX-2 and 2.3",
    pipeline_classes=("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"),
    components={
        "tokenizer": tokenizer(*GEMMA_TOKENIZERS),
        "text_encoder": encoder(
            "Gemma3ForConditionalGeneration",
            idle=(HEAD, "model.vision_tower", "model.multi_modal_projector"),
        ),
        "connectors": module("LTX2TextConnectors", home=_HOME),
        "transformer": native("LTX2VideoTransformer3DModel"),
        "vae": module("AutoencoderKLLTX2Video"),
        "audio_vae": module("AutoencoderKLLTX2Audio"),
        "vocoder": module("LTX2Vocoder", "LTX2VocoderWithBWE", home=_HOME),
    },
    unused=(
        ("transformers", "Gemma3Processor"),
        (_HOME, "LTX2LatentUpsamplerModel"),
    ),
    tasks=("text-to-video", "image-to-video"),
    parameters=(
        "num_frames",
        "fps",
        "max_sequence_length",
        "last_image_path",
        "audio_guidance_scale",
        "modality_scale",
        "guidance_rescale",
        SKIPPING_PARAMETER,
        *INTERVAL,
    ),
    size_multiple=32,
    defaults=Defaults(
        width=768,
        height=512,
        num_frames=121,
        fps=24,
        num_inference_steps=30,
        guidance_scale=3.0,
        audio_guidance_scale=7.0,
        stg_scale=1.0,
        modality_scale=3.0,
        guidance_rescale=0.7,
        max_sequence_length=1024,
    ),
    limits=Limits(max_frames=481, max_sequence_length=1024),
    frame_multiple=8,
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875)
"""Noise levels that distilled checkpoints were trained for."""

DISTILLED_DEFAULTS = msgspec.structs.replace(
    LTX2.defaults,
    num_inference_steps=len(DISTILLED_SIGMAS),
    guidance_scale=1.0,
    audio_guidance_scale=1.0,
    stg_scale=0.0,
    modality_scale=1.0,
    guidance_rescale=0.0,
)
