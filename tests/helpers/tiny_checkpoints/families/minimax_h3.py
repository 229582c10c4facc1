"""MiniMax-H3: one packed sequence of text, sound and video."""

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLMiniMaxH3,
    AutoencoderKLMiniMaxH3Audio,
    MiniMaxH3Blocks,
    MiniMaxH3ModularPipeline,
    MiniMaxH3Scheduler,
    MiniMaxH3Transformer3DModel,
    SchedulerMixin,
)
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from ..case import Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..schedulers import Config
from .qwen_image import PATCH, qwen2_tokenizer

SCHEDULER: Config = {"_class_name": "MiniMaxH3Scheduler", "shift": 12.0}
LAYERS = 51
"""The pipeline takes the state after 50 layers of its language model."""
LATENT_CHANNELS = 4


class PromptProcessor(Qwen3VLProcessor):
    """Without its part for videos, which can't be made where there is no torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def prompt_processor(folder: Path) -> PromptProcessor:
    """The processor that was saved in `folder`."""
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    return PromptProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def qwen3_processor() -> PromptProcessor:
    return PromptProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 16 * PATCH**2, "longest_edge": 60 * PATCH**2},
            patch_size=PATCH,
        ),
        tokenizer=qwen2_tokenizer(),
    )


def minimax_h3_pipeline(scheduler: SchedulerMixin, *, heads: int) -> MiniMaxH3ModularPipeline:
    pipeline = MiniMaxH3ModularPipeline(MiniMaxH3Blocks())
    pipeline.update_components(
        scheduler=scheduler,
        audio_scheduler=MiniMaxH3Scheduler(shift=3.0),
        text_encoder=qwen3_vl(),
        tokenizer=qwen2_tokenizer(),
        processor=qwen3_processor(),
        transformer=_transformer(heads),
        transformer_ref=_transformer(heads),
        vae=_vae(),
        audio_vae=_audio_vae(),
        reference_image_short_edge=32,
    )
    return pipeline


def _transformer(heads: int) -> MiniMaxH3Transformer3DModel:
    return MiniMaxH3Transformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=8,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        ffn_dim=32,
        in_channels=LATENT_CHANNELS,
        audio_in_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        time_embed_hidden_dim=16,
        time_embed_dim=16,
        rope_freq_dim=1,
    )


def _vae() -> AutoencoderKLMiniMaxH3:
    return AutoencoderKLMiniMaxH3(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(4, 4, 4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        decoder_num_layers=1,
        decoder_num_attention_heads=2,
        decoder_attention_head_dim=16,
        decoder_num_register_tokens=1,
        decoder_ffn_mult=1,
        latents_mean=(0.1, -0.2, 0.3, 0.0),
        latents_std=(1.1, 0.9, 1.2, 1.0),
    )


def _audio_vae() -> AutoencoderKLMiniMaxH3Audio:
    return AutoencoderKLMiniMaxH3Audio(
        encoder_dim=2,
        encoder_rates=(2, 2),
        latent_dim=8,
        latent_channels=4,
        num_attention_heads=1,
        decoder_dim=8,
        decoder_rates=(2, 2),
        decoder_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        sampling_rate=160,
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 0.9, 1.1, 1.2],
    )


def qwen3_vl() -> Qwen3VLForConditionalGeneration:
    tokenizer = qwen2_tokenizer()
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": WIDTH,
                "intermediate_size": WIDTH,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000000.0,
                    "mrope_section": [2, 1, 1],
                },
            },
            vision_config={
                "depth": 2,
                "hidden_size": WIDTH,
                "intermediate_size": WIDTH,
                "num_heads": 2,
                "patch_size": PATCH,
                "out_hidden_size": WIDTH,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
            **ids,
        )
    )


VIDEO = {"num_frames": 124, "width": 64, "height": 32, "guidance_scale": None}
CHECKPOINTS = {
    "minimax-h3": TinyCheckpoint(
        minimax_h3_pipeline,
        SCHEDULER,
        inputs=("prompt", "seed", "steps"),
        call={"num_frames": 124},
        # a short prompt is a small part of what attention averages
        gains={"attn.norm_q": 2.0, "attn.norm_k": 4.0, "attn.to_v.": 8.0},
    )
}
CASES = {
    ("minimax_h3", "text-to-video"): Case("minimax-h3", changes=VIDEO),
    ("minimax_h3", "reference-to-video"): Case(
        "minimax-h3",
        changes={**VIDEO, "image": [picture(90, 70), picture(40, 60)]},
    ),
    ("minimax_h3", "image-to-video"): Case(
        "minimax-h3", changes={**VIDEO, "image": picture(90, 70)}
    ),
}
