"""LTX-Video: few, strongly compressed latents, and a model that is conditioned on the fps."""

from multimodal_gen.configs.families.components import T5_TOKENIZERS, encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("Lightricks/LTX-Video"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="LTXVideoTransformer3DModel",
        style="original",
        keys=("patchify_proj.weight", "adaln_single.linear.weight"),
        without=("audio_patchify_proj.weight",),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="LTXVideoTransformer3DModel",
        style="diffusers",
        keys=("proj_in.weight", "time_embed.linear.weight", "caption_projection.linear_1.weight"),
        without=("audio_proj_in.weight",),
        bases=_BASES,
    ),
)

DECODER_PARAMETERS = ("decode_timestep", "decode_noise_scale")
"""For models since version 0.9.1, whose decoder is told a noise level."""

LTX = FamilyConfig(
    name="ltx",
    title="LTX-Video",
    pipeline_classes=("LTXPipeline", "LTXImageToVideoPipeline"),
    components={
        "tokenizer": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("T5EncoderModel"),
        "transformer": module("LTXVideoTransformer3DModel"),
        "vae": module("AutoencoderKLLTXVideo"),
    },
    tasks=("text-to-video", "image-to-video"),
    parameters=("num_frames", "fps", "max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=32,
    defaults=Defaults(
        width=704,
        height=512,
        num_frames=161,
        fps=25,
        num_inference_steps=50,
        guidance_scale=3.0,
        max_sequence_length=128,
    ),
    limits=Limits(max_frames=257, max_sequence_length=512),
    frame_multiple=8,
    single_files=_SINGLE_FILES,
    views=(View.FLOW,),
)
