"""Videos with diffusers' AutoencoderKLCogVideoX, two latent frames per chunk."""

from __future__ import annotations

from torch import Tensor

from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class CogVideoXVAE(VideoVAE):
    """Equals the module's own decode; the past frames that its convolutions use are carried."""

    @property
    def pixels_per_latent(self) -> int:
        return int(2 ** (len(self._module.config.block_out_channels) - 1))

    @property
    def frame_multiple(self) -> int:
        return int(self._module.config.temporal_compression_ratio)

    def chunks(self, frames: int) -> int:
        return max(frames // self._together, 1)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """The first chunk includes the extra frame."""
        module = self._module
        left_over = latents.shape[2] % self._together
        start = self._together * chunk + (left_over if chunk else 0)
        end = self._together * (chunk + 1) + left_over
        frames = self._denormalized(latents[:, :, start:end].to(module.dtype))
        if module.post_quant_conv is not None:
            frames = module.post_quant_conv(frames)
        video, features = module.decoder(frames, conv_cache=carry)
        assert features is not None
        return video[0].transpose(0, 1), features

    def _normalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return factor * latents

    def _denormalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return 1 / factor * latents

    @property
    def _together(self) -> int:
        """Latent frames per chunk."""
        return int(self._module.num_latent_frames_batch_size)
