"""Pipelines without a family of their own, as the fallback runs them: a legacy step callback
(PixArt-alpha), the present one (Lumina 2), and a video (Latte)."""

from diffusers import (
    LattePipeline,
    LatteTransformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SchedulerMixin,
)

from .. import encoders, llms
from ..case import AS_ASKED, Case
from ..checkpoint import TinyCheckpoint
from ..llm_tokenizers import gemma_tokenizer
from ..schedulers import PIXART_SIGMA, Config
from ..tokenizers import t5_tokenizer
from ..vaes import image_vae

LATTE: Config = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": False,
    "num_train_timesteps": 1000,
}
LUMINA2: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 6.0,
}

HEAD_DIM = 8


def pixart_alpha_pipeline(scheduler: SchedulerMixin, *, heads: int) -> PixArtAlphaPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=32,  # one of the three whose sizes the pipeline knows
        num_layers=2,
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        cross_attention_dim=heads * HEAD_DIM,
        caption_channels=encoders.WIDTH,
        out_channels=8,
        use_additional_conditions=False,
    )
    return PixArtAlphaPipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=4, scaling_factor=0.18215),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def latte_pipeline(scheduler: SchedulerMixin, *, heads: int) -> LattePipeline:
    transformer = LatteTransformer3DModel(
        sample_size=8,
        video_length=16,
        num_layers=1,
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        in_channels=4,
        out_channels=8,
        patch_size=2,
        cross_attention_dim=heads * HEAD_DIM,
        caption_channels=encoders.WIDTH,
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
    )
    return LattePipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=4, scaling_factor=0.18215),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def lumina2_pipeline(scheduler: SchedulerMixin, *, heads: int) -> Lumina2Pipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=16,
        hidden_size=heads * HEAD_DIM,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=heads,
        num_kv_heads=heads // 2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=encoders.WIDTH,
    )
    return Lumina2Pipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=llms.gemma2(),
        tokenizer=gemma_tokenizer(),
        transformer=transformer,
    )


CHECKPOINTS = {
    "pixart-alpha": TinyCheckpoint(pixart_alpha_pipeline, PIXART_SIGMA, call=AS_ASKED),
    "latte": TinyCheckpoint(latte_pipeline, LATTE, call={"video_length": 16}),
    "lumina2": TinyCheckpoint(lumina2_pipeline, LUMINA2, call={"system_prompt": "a"}),
}
CASES = {
    ("fallback", "text-to-image"): Case("lumina2"),
    ("fallback", "text-to-video"): Case("latte", stock_call={"clean_caption": False}),
}
