"""The VAE that image models share: real block types, few channels."""

from typing import Any

from diffusers import AutoencoderKL


def image_vae(**config: Any) -> AutoencoderKL:
    """An AutoencoderKL of eight pixels a latent; `config` says what is the family's own."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **config,
    )


def flux_vae() -> AutoencoderKL:
    """FLUX.1's, which Z-Image has too: 16 latent channels, no quant convolutions."""
    return image_vae(
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
    )
