"""Common interface of VAE wrappers: what pipelines need of a diffusers autoencoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.library_noise import draw_without_waiting
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.tiles.tiled_decoder import TiledDecoder

draw_without_waiting(DiagonalGaussianDistribution)
_PREVIEW_SIDE = 32  # latents; 256 pixels of an 8x VAE

Carry = Any
"""State from decoding one chunk for the next. The caller keeps it, with the request."""


class VAE(TiledDecoder):
    """Wraps a module of diffusers. Latents are [B, C, h, w], normalized for the denoiser.

    It keeps the module but no tensors of it, nor any made from them: weights may move between two
    calls. Images are decoded in one chunk.
    """

    decodes_batches: ClassVar[bool] = True
    """True if latents of one chunk may be decoded as a batch."""

    @classmethod
    def transform(cls, module: Any) -> Any:
        """Rewrite the weights of a newly loaded module, once."""
        return module

    # -- geometry

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self._module.config.latent_channels)

    @property
    def frame_multiple(self) -> int:
        """Video frames per latent frame after the first."""
        return 1

    def latent_shape(self, height: int, width: int, frames: int | None = None) -> tuple[int, ...]:
        """[C, h, w] of an image of this size in pixels."""
        return self.channels, height // self.pixels_per_latent, width // self.pixels_per_latent

    # -- pixels to latents

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode pixels [B, 3, H, W] in -1..1 to latents in the VAE's dtype.

        They are drawn from the posterior by `generator` (on the CPU); without one they are its
        mode.
        """
        return self._normalized(self._posterior(pixels, generator))

    def _posterior(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        pixels = copied(pixels, self._module.device, self._module.dtype)
        frames = (pixels.shape[2] - 1) // self.frame_multiple + 1 if pixels.dim() == 5 else 1
        height, width = pixels.shape[-2:]
        with self.tiled_encode(height, width, frames):
            posterior = self._module.encode(pixels, return_dict=False)[0]
        latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
        return latents

    # -- latents to pixels

    def chunks(self, frames: int) -> int:
        """Number of chunks for decoding this many latent frames."""
        return 1

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """Pixels [B * F, 3, H, W] in about -1..1 of a chunk of `latents`, and the state for the
        next chunk.

        `carry` is the state that the previous chunk returned, None for the first. `seed` is for
        decoders that draw noise. B is 1 if there are several chunks, or `decodes_batches` is false.
        """
        latents = self._denormalized(latents.to(self._module.dtype))
        return self._module.decode(latents, return_dict=False)[0], None

    def module_latents(self, latents: Tensor, **options: Any) -> Tensor:
        return self._denormalized(latents.to(self._module.dtype)).unsqueeze(2)

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        before: Any = getattr(self._module, "post_quant_conv", None)
        tile = latents[:, :, 0].contiguous(memory_format=torch.channels_last)
        decoded: Tensor = self._module.decoder(tile if before is None else before(tile))
        return decoded.unsqueeze(2), None

    def preview(self, latents: Tensor) -> Tensor:
        """Small image [h, w, 3] uint8 of latents [1, ...]; for a video, of its first frame."""
        pixels, _ = self.decode(shrunk(latents))
        return to_uint8(pixels[:1])[0]

    # -- the scaling between VAE and denoiser

    @abstractmethod
    def _normalized(self, latents: Tensor) -> Tensor:
        """Convert the module's latents to the denoiser's."""

    @abstractmethod
    def _denormalized(self, latents: Tensor) -> Tensor:
        """Convert the denoiser's latents to the module's."""


class VideoVAE(VAE):
    """Pixels are [B, 3, F, H, W] and latents [B, C, T, h, w]; the first frame is a latent frame of
    its own, and so is each following group of `frame_multiple`."""

    decodes_batches = False

    @property
    def pixels_per_latent(self) -> int:
        return int(self._module.spatial_compression_ratio)

    @property
    def frame_multiple(self) -> int:
        return int(self._module.temporal_compression_ratio)

    def module_latents(self, latents: Tensor, **options: Any) -> Tensor:
        return self._denormalized(latents.to(self._module.dtype))

    def tile_values(self, frames: int) -> tuple[int, int]:
        return 3, (frames - 1) * self.frame_multiple + 1

    def latent_shape(self, height: int, width: int, frames: int | None = None) -> tuple[int, ...]:
        assert frames is not None
        channels, down, across = super().latent_shape(height, width)
        return channels, (frames - 1) // self.frame_multiple + 1, down, across

    def preview(self, latents: Tensor) -> Tensor:
        pixels, _ = self.decode(shrunk(latents[:, :, 0]).unsqueeze(2))
        return to_uint8(pixels[:1])[0]


def shrunk(latents: Tensor) -> Tensor:
    """Shrink latents [1, C, h, w] that are larger than a preview needs."""
    larger = max(latents.shape[-2:])
    if larger <= _PREVIEW_SIDE:
        return latents
    size = [max(1, side * _PREVIEW_SIDE // larger) for side in latents.shape[-2:]]
    return F.interpolate(latents.float(), size, mode="area").to(latents.dtype)
