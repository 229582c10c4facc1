"""HiDream-I1: a mixture of experts that reads four text encoders."""

from types import SimpleNamespace
from typing import Any

from diffusers import HiDreamImagePipeline, HiDreamImageTransformer2DModel, SchedulerMixin
from diffusers.pipelines.hidream_image import pipeline_hidream_image
from transformers import CLIPTextModelWithProjection, LlamaForCausalLM

from .. import encoders, llms
from ..case import Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..llm_tokenizers import llama_tokenizer
from ..schedulers import Config
from ..tokenizers import clip_tokenizer, t5_tokenizer
from ..vaes import flux_vae

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}


def long_clip() -> CLIPTextModelWithProjection:
    """One that reads more than 77 tokens."""
    config = encoders.clip_text_with_projection().config
    config.max_position_embeddings = 248
    return CLIPTextModelWithProjection(config)


def llama_lm() -> LlamaForCausalLM:
    return LlamaForCausalLM(llms.llama().config)


def hidream_transformer(heads: int = 4) -> HiDreamImageTransformer2DModel:
    return HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=heads,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        num_routed_experts=4,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=[0, 1],
    )


def hidream_pipeline(scheduler: SchedulerMixin, *, heads: int) -> Any:
    return HiDreamImagePipeline(
        scheduler=scheduler,
        vae=flux_vae(),
        text_encoder=long_clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=long_clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoders.t5(),
        tokenizer_3=t5_tokenizer(),
        text_encoder_4=llama_lm(),
        tokenizer_4=llama_tokenizer(),
        transformer=hidream_transformer(heads),
    )


VARIANTS = {"hidream": TinyCheckpoint(hidream_pipeline, SCHEDULER)}
CASES = {
    ("hidream", "text-to-image"): Case(
        "hidream",
        changes={"negative_prompt": "blurry", "max_sequence_length": 32},
        patches=(  # else the size is scaled
            (pipeline_hidream_image.__name__, "math", SimpleNamespace(sqrt=lambda _: 1.0)),
        ),
    ),
}
