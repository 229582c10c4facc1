"""Z-Image: one stream, FLUX.1's VAE, Qwen3 as text encoder."""

from diffusers import (
    SchedulerMixin,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from ..case import STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..qwen3 import qwen3, qwen3_tokenizer
from ..schedulers import Config
from ..vaes import flux_vae

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}

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


_PICTURE = {"image": picture(96, 64)}
_INPAINTING = {**_PICTURE, "mask_image": picture(96, 64, "L")}
CHECKPOINTS = {"zimage": TinyCheckpoint(z_image_pipeline, SCHEDULER)}
CASES = {
    ("z_image", "text-to-image"): Case("zimage"),
    ("z_image", "image-to-image"): Case("zimage", ZImageImg2ImgPipeline, _PICTURE | STRENGTH),
    ("z_image", "inpainting"): Case("zimage", ZImageInpaintPipeline, _INPAINTING | STRENGTH),
}
