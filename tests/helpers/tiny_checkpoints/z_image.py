"""Z-Image: one stream, FLUX.1's VAE, Qwen3 as text encoder."""

from diffusers import SchedulerMixin, ZImagePipeline, ZImageTransformer2DModel

from .encoders import WIDTH
from .qwen3 import qwen3, qwen3_tokenizer
from .vaes import flux_vae

HEAD_DIM = 16


def z_image_pipeline(scheduler: SchedulerMixin, *, heads: int) -> ZImagePipeline:
    return ZImagePipeline(
        scheduler=scheduler,
        vae=flux_vae(),
        text_encoder=qwen3(layers=3),
        tokenizer=qwen3_tokenizer(),
        transformer=ZImageTransformer2DModel(
            in_channels=16,
            dim=heads * HEAD_DIM,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=heads,
            n_kv_heads=heads,
            cap_feat_dim=WIDTH,
            axes_dims=[4, 6, 6],
            axes_lens=[1536, 512, 512],
        ),
    )
