"""The autoencoder: 8 x 8 pixels become one position of 16 channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from trainer import Rates, device

CROP = 64
CHANNEL_ORDERS = torch.tensor(
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], dtype=torch.long
)


def make_vae() -> AutoencoderKL:
    """With random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=96,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


class VaeStage:
    """Trains on `pool`, uint8 [n, 96, 96, 3]."""

    name = "vae"
    rates = Rates(muon=4e-3, adam=2e-3, ema=0.998)
    noise = 0.15
    """On the latents at most, of their deviation."""
    crops_share = 0.68
    """Of the time, on crops; whole pictures after that."""
    squares = 1.0
    """Weight of the squared error."""

    def __init__(self, vae: AutoencoderKL, pool: Path, batch: int) -> None:
        self._vae = vae
        self.module: nn.Module = vae
        self._pool = np.load(pool, mmap_mode="r")
        self._batch = batch

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool:
        outer = name.startswith(("encoder.conv_in", "decoder.conv_out"))
        return parameter.ndim == 4 and not outer

    def loss(self, step: int, share: float, rng: np.random.Generator) -> tuple[Tensor, int]:
        crops = share < self.crops_share
        pictures = self._draw(rng, self._batch if crops else max(1, self._batch // 2), crops)
        # Convolutions of few channels are faster in float32 on a CPU.
        with torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda"):
            mean, log_variance = self._encode(pictures).float().chunk(2, dim=1)
            # Relative to the scale, so that the encoder can't escape by making it large. The
            # decoder learns to forgive the denoiser's small errors.
            amount = torch.rand(len(mean), 1, 1, 1, device=mean.device) * self.noise
            noise = amount * mean.detach().std() * torch.randn_like(mean)
            decoded = self._vae.decoder(mean + noise).float()
        spread = mean.square().mean() + (log_variance + 6).square().mean()
        loss = reconstruction(decoded, pictures, self.squares) + 1e-3 * spread
        return loss, len(pictures)

    def _encode(self, pictures: Tensor) -> Tensor:
        return self._vae.encoder(pictures)

    def _draw(self, rng: np.random.Generator, count: int, crops: bool) -> Tensor:
        """Pictures in [-1, 1], some mirrored and some with their channels in another order."""
        side = CROP if crops else self._pool.shape[1]
        room = self._pool.shape[1] - side + 1
        drawn = []
        for index in rng.integers(len(self._pool), size=count):
            top, left = rng.integers(room, size=2)
            picture = self._pool[index, top : top + side, left : left + side]
            drawn.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
        pixels = torch.from_numpy(np.stack(drawn)).to(device()).permute(0, 3, 1, 2).float()
        for i in range(count):
            if rng.random() < 0.5:
                pixels[i] = pixels[i, CHANNEL_ORDERS[rng.integers(6)]]
        return (pixels / 127.5 - 1).contiguous()


class DecoderStage(VaeStage):
    """Trains the decoder alone, on whole pictures and nearly clean latents, which stay as they are.

    Tolerance of noise costs sharpness; what a finished denoiser makes is close to the truth. The
    squared error weighs the drawings that are hardest.
    """

    name = "decoder"
    rates = Rates(muon=1e-3, adam=5e-4, ema=0.998)
    noise = 0.04
    crops_share = 0.0
    squares = 20.0

    def __init__(self, vae: AutoencoderKL, pool: Path, batch: int) -> None:
        super().__init__(vae, pool, batch)
        self.module = vae.decoder

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool:
        return super().by_muon(f"decoder.{name}", parameter)

    @torch.no_grad()
    def _encode(self, pictures: Tensor) -> Tensor:
        return super()._encode(pictures)


def reconstruction(decoded: Tensor, pictures: Tensor, squares: float) -> Tensor:
    """Distance of decoded pictures from the true ones: values, edges, areas, squares."""
    difference = decoded - pictures
    edges = (
        (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        + (difference[..., 1:] - difference[..., :-1]).abs().mean()
    ) / 2
    areas = functional.avg_pool2d(difference, 4).abs().mean()
    squared = difference.square().mean()
    return difference.abs().mean() + 0.5 * edges + 0.5 * areas + squares * squared
