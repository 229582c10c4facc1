"""PixArt-Sigma: cross-attention transformer that also predicts variances, T5 with its mask."""

from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel, SchedulerMixin

from .. import encoders
from ..case import AS_ASKED, Case
from ..checkpoint import TinyCheckpoint
from ..schedulers import PIXART_SIGMA
from ..tokenizers import t5_tokenizer
from ..vaes import image_vae

HEAD_DIM = 8


def pixart_sigma_pipeline(scheduler: SchedulerMixin, *, heads: int) -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=4, scaling_factor=0.13025),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=HEAD_DIM,
            cross_attention_dim=heads * HEAD_DIM,
            num_layers=2,
            sample_size=8,
            caption_channels=encoders.WIDTH,
            use_additional_conditions=False,
        ),
    )


CHECKPOINTS = {
    "pixart-sigma": TinyCheckpoint(pixart_sigma_pipeline, PIXART_SIGMA, call=AS_ASKED),
}
CASES = {("pixart_sigma", "text-to-image"): Case("pixart-sigma", stock_call=AS_ASKED)}
