"""HunyuanVideo: double and single stream blocks over video, Llama and CLIP, a causal VAE."""

from diffusers import (
    AutoencoderKLHunyuanVideo,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    SchedulerMixin,
)

from .. import encoders, llms
from ..case import VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..llm_tokenizers import llama_tokenizer
from ..schedulers import Config
from ..tokenizers import clip_tokenizer

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 7.0,
    "use_dynamic_shifting": False,
}

HEAD_DIM = 12
CHANNELS = 8


def hunyuan_video_pipeline(scheduler: SchedulerMixin, *, heads: int) -> HunyuanVideoPipeline:
    return HunyuanVideoPipeline(
        scheduler=scheduler,
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=CHANNELS,
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        text_encoder=llms.llama(),
        tokenizer=llama_tokenizer(),
        text_encoder_2=encoders.clip_text(),
        tokenizer_2=clip_tokenizer(),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=encoders.WIDTH,
            pooled_projection_dim=encoders.WIDTH,
            rope_axes_dim=(4, 4, 4),
        ),
    )


CHECKPOINTS = {
    "hunyuan-video": TinyCheckpoint(
        hunyuan_video_pipeline,
        SCHEDULER,
        ("prompt", "seed", "steps", "guidance", "true guidance"),
        {"num_frames": 5},
    ),
}
CASES = {("hunyuan_video", "text-to-video"): Case("hunyuan-video", None, VIDEO)}
