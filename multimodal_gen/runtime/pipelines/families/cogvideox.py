"""CogVideoX (1.0 and 1.5), after diffusers' CogVideoXPipeline and CogVideoXVideoToVideoPipeline."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import msgspec
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

from multimodal_gen.configs.families.cogvideox import COGVIDEOX, FPS_1_5
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.cogvideox import CogVideoXVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.start.picture_start import (
    PictureStart,
    noise_model_start,
    video_latents,
)
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class CogVideoXPipeline(ComposedPipeline):
    """Latents are [1, T, C, h, w].

    As in the reference, a video has the requested frames if they are 1 more than a multiple of
    twice `frame_multiple`, else a few more: the VAE decodes latent frames in pairs.
    """

    layout: CogVideoXLatents
    family = COGVIDEOX
    vae_class = CogVideoXVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.text_embed_dim": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._t5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.reads.in_one = {"text_encoder": self._t5}
        self._denoiser = self.make_denoiser("transformer")
        self._config = config = self.components["transformer"].config
        self.layout = CogVideoXLatents(
            self.vae,
            self.context,
            patch=(config.patch_size_t or 1, config.patch_size, config.patch_size),
            multiple=self.family.size_multiple,
        )
        self.guidance = ClassifierFreeGuidance(float32=True)
        drawn = partial(video_latents, self.layout, drawn=True)
        self.start = PictureStart(self.layout, noise_model_start, picture=drawn)

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Size and length that the transformer was trained with."""
        with complaints("config.json of transformer or vae"):
            config, defaults = checkpoint.config("transformer"), cls.family.defaults
            pixels = 2 ** (len(checkpoint.config("vae").get("block_out_channels", "8421")) - 1)
            return msgspec.structs.replace(
                defaults,
                width=config.get("sample_width", defaults.width // pixels) * pixels,
                height=config.get("sample_height", defaults.height // pixels) * pixels,
                num_frames=config.get("sample_frames", defaults.num_frames),
                max_sequence_length=config.get("max_text_seq_length", defaults.max_sequence_length),
                fps=defaults.fps if config.get("patch_size_t") is None else FPS_1_5,
            )

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        self._check_positions(state.params)
        if "video" in state.pictures and self.layout.added(state.params):
            allowed = "is not possible with a video: its latent frames must fill the patches"
            raise InvalidRequest("num_frames", state.params.num_frames, allowed)
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states of all `length` tokens, including padding."""
        return {"encoder_hidden_states": self._t5(text, length)[0].to(self.context.dtype)}

    def _check_positions(self, params: SamplingParams) -> None:
        """Raise InvalidRequest for sizes beyond the model's positions."""
        config, pixels = self._config, self.vae.pixels_per_latent
        length, known = params.max_sequence_length, config.max_text_seq_length
        if length != known and not config.use_rotary_positional_embeddings:
            raise InvalidRequest("max_sequence_length", length, f"must be {known} for this model")
        for name in ("width", "height") if config.patch_size_t is not None else ():
            side, largest = getattr(params, name), config[f"sample_{name}"] * pixels
            if side > largest:
                raise InvalidRequest(name, side, f"must be at most {largest} for this model")

    def predict(self, rows: Rows) -> Tensor:
        rotary = None
        if self._config.use_rotary_positional_embeddings:
            _, frames, _, height, width = rows.latents.shape
            rotary = self._rotary(frames, height, width)
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        return self._denoiser(tensors, {"image_rotary_emb": rotary}, rows.lora)

    def _rotary(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [tokens, D] for a video of this size in latents.

        Version 1.0 scales its grid to that of its training size, 1.5 takes a slice of it.
        """
        patch, patch_t = self._config.patch_size, self._config.patch_size_t
        grid = height // patch, width // patch
        trained = self._config.sample_height // patch, self._config.sample_width // patch
        where: dict[str, Any] = {
            "crops_coords": get_resize_crop_region_for_grid(grid, trained[1], trained[0])
        }
        if patch_t is not None:
            where = {"crops_coords": None, "grid_type": "slice", "max_size": trained}
        rotary: Any = get_3d_rotary_pos_embed(
            embed_dim=self._config.attention_head_dim,
            grid_size=grid,
            temporal_size=-(-frames // (patch_t or 1)),
            device=self.context.device,
            **where,
        )
        cosines, sines = rotary
        return cosines, sines


class CogVideoXLatents(LatentLayout):
    """Frames come first: [1, T, C, h, w]. There may be extra frames at the start, which fill a
    patch in time and are not decoded."""

    def shape(self, params: SamplingParams) -> tuple[int, ...]:
        channels, frames, height, width = super().shape(params)
        return channels, frames + self.added(params), height, width

    def frames(self, params: SamplingParams) -> int:
        return super().frames(params) - self.added(params)

    def pack(self, latents: Tensor) -> Tensor:
        return latents.transpose(1, 2)

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        return latents[:, self.added(params) :].transpose(1, 2)

    def noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        """Draw frame by frame, as diffusers does."""
        channels, frames, height, width = self.shape(params)
        shape = (1, frames, channels, height, width)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype)
        return copied(noise, self.device)

    def added(self, params: SamplingParams) -> int:
        """Number of extra frames."""
        _, frames, _, _ = super().shape(params)
        return -frames % self._patch[0]


PIPELINE = CogVideoXPipeline
