"""Sana: linear attention, a deep-compression autoencoder, and Gemma 2 for the text."""

from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel, SchedulerMixin

from .. import encoders, llms
from ..case import AS_ASKED, Case
from ..checkpoint import TinyCheckpoint
from ..llm_tokenizers import gemma_tokenizer
from ..schedulers import PIXART_SIGMA, Config

SCHEDULER: Config = {
    **PIXART_SIGMA,
    "flow_shift": 3.0,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
}

HEAD_DIM = 8
CHANNELS = 8
_BLOCKS = {
    "encoder_block_types": ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
    "encoder_block_out_channels": (8, 8, 16, 16),
    "decoder_block_out_channels": (8, 8, 16, 16),
    "encoder_layers_per_block": (1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "encoder_qkv_multiscales": ((), (), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (), (5,)),
}


def sana_pipeline(scheduler: SchedulerMixin, *, heads: int) -> SanaPipeline:
    width = heads * HEAD_DIM
    return SanaPipeline(
        scheduler=scheduler,
        vae=AutoencoderDC(
            latent_channels=CHANNELS, attention_head_dim=HEAD_DIM, scaling_factor=0.41407, **_BLOCKS
        ),
        text_encoder=llms.gemma2(),
        tokenizer=gemma_tokenizer(),
        transformer=SanaTransformer2DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=width // 2,
            cross_attention_dim=width,
            caption_channels=encoders.WIDTH,
            sample_size=8,
        ),
    )


CHECKPOINTS = {"sana": TinyCheckpoint(sana_pipeline, SCHEDULER, call=AS_ASKED)}
CASES = {("sana", "text-to-image"): Case("sana", stock_call=AS_ASKED)}
