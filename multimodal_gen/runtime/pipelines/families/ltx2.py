"""LTX-2: videos with their sound, after diffusers' LTX2Pipeline; LTX2ImageToVideoPipeline for a
first frame, and LTX2ConditionPipeline for a first and a last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.ltx2 import (
    DISTILLED_DEFAULTS,
    DISTILLED_SIGMAS,
    LTX2,
    SKIPPING_PARAMETER,
)
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config
from multimodal_gen.runtime.models.dits.ltx2.keys import ltx2_key_map
from multimodal_gen.runtime.models.dits.ltx2.model import LTX2Transformer
from multimodal_gen.runtime.models.dits.ltx2.rotary import VideoGrid
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.upscaler import Upscaler
from multimodal_gen.runtime.models.vaes.ltx import LTXVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.ltx import default_video
from multimodal_gen.runtime.pipelines.families.ltx2_frames import NOISY, GivenFrames
from multimodal_gen.runtime.pipelines.families.ltx2_guidance import (
    ISOLATED,
    PERTURBED,
    LTX2Guidance,
)
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.latents.with_sound import LatentsWithSound
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.latent_start import check_upsampler
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows, join_rows

_MARKS = (PERTURBED, ISOLATED)


class LTX2Pipeline(ComposedPipeline):
    """Latents are tokens of the video and then of the sound, in float32 between evaluations."""

    family = LTX2
    native = NativeTransformer(LTX2Config, LTX2Transformer, ltx2_key_map)
    vae_class = LTXVAE
    enlarges_latents = True
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.audio_in_channels": ("audio_vae.base_channels",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        gemma = self.components["text_encoder"].model.language_model
        self._gemma = TextEncoder(self.components["tokenizer"], gemma, padding_side="left")
        self.reads.in_one = {"text_encoder": self._gemma}
        self._transformer: LTX2Transformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        self.layout: LatentsWithSound = LatentsWithSound(
            self.vae, self.components["audio_vae"], self.context, self.family.size_multiple
        )
        self._frames = GivenFrames(self.layout)
        self.start = PictureStart(self.layout, flow_model_start)
        self.guidance = LTX2Guidance(self.layout, self._frames, skips=self._skips)

    # -- properties of the checkpoint

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        for stream in ("video", "audio"):
            name = f"{stream}_connector_num_learnable_registers"
            if checkpoint.config("connectors").get(name, 1) is None:
                raise InvalidCheckpoint(f"connectors/config.json: {name} must be a number")

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Distilled checkpoints are those whose schedule does not depend on the size: it is fixed,
        as their noise levels are."""
        distilled = not checkpoint.scheduler_config().get("use_dynamic_shifting")
        return default_video(checkpoint, DISTILLED_DEFAULTS if distilled else cls.family.defaults)

    @property
    def _skips(self) -> bool:
        config: LTX2Config = self.components["transformer"].config
        return config.skipping_block is not None

    @property
    def parameters(self) -> tuple[str, ...]:
        known = super().parameters
        return known if self._skips else tuple(n for n in known if n != SKIPPING_PARAMETER)

    # -- generation

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        if branch not in _MARKS:
            return self.prompts.encoded(state, branch, self._encode)
        mark = torch.ones(1, device=self.context.device)
        return {**self.prompts.encoded(state, "positive", self._encode), branch: mark}

    def _encode(self, text: str, length: int) -> Conditioning:
        """All of Gemma's states, which the connectors make texts for video and sound of. Learned
        tokens take the place of padding, so that none of them is masked."""
        connectors = self.components["connectors"]
        for stream in ("video", "audio"):
            registers = connectors.config[f"{stream}_connector_num_learnable_registers"]
            if length % registers:
                allowed = f"must be a multiple of {registers} for this model"
                raise InvalidRequest("max_sequence_length", length, allowed)
        text = text.strip()
        states = self._gemma(text, length, masked=True, hidden_states=True).hidden_states
        _, mask = self._gemma.tokenize(text, length)
        with torch.inference_mode():
            layers = torch.stack(states, dim=-1).flatten(2, 3)  # [1, length, D * layers]
            video, audio, _ = connectors(layers, mask, padding_side="left")
        self.reads.in_one = {"text_encoder": self._gemma}
        texts = {"encoder_hidden_states": video, "audio_encoder_hidden_states": audio}
        return {name: each.to(self.context.dtype) for name, each in texts.items()}

    def prepare(self, state: RequestState) -> None:
        tokens = self.layout.tokens(state.params) + self._frames.added(state)
        levels = {
            **self.schedule(state.params),
            "mu": linear_shift(self.scheduler_config, tokens),
        }
        state.solver = self.solver_of(state.params, state.generator, levels)
        if state.clean is not None:
            self.start.begin(state, state.solver)
        self._frames.prepare(state, state.solver)

    def check_upsampler(self, choice: UpscaleChoice, upscaler: Upscaler | LatentUpsampler) -> None:
        check_upsampler(choice, upscaler, self.vae.channels)

    def enlarged(self, state: RequestState, upsampler: LatentUpsampler) -> Tensor:
        """As LTX2LatentUpsamplePipeline does; the sound stays as it is."""
        params, (_, latents) = state.params, state.running()
        assert isinstance(self.vae, LTXVAE)
        video = upsampler(self.vae.module_latents(self.layout.unpack(latents, params)))
        sound = latents[:, -self.layout.sound_tokens(params) :]
        return torch.cat((self.layout.pack(self.vae.from_module(video)), sound), dim=1)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """Include the frame rate: the model gets positions in seconds."""
        return f"{super().batch_kind(state, evaluation)} {state.params.fps} fps"

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        fixed = not self.scheduler_config.get("use_dynamic_shifting")
        distilled = fixed and params.num_inference_steps == len(DISTILLED_SIGMAS)
        sigmas = DISTILLED_SIGMAS if distilled else falling_sigmas(params)
        mu = linear_shift(self.scheduler_config, self.layout.tokens(params))
        return {"sigmas": sigmas, "mu": mu, "sigmas_for_all": True}

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        """Rows of other branches than those that are marked have marks of 0."""
        plain = [{n: each[n] for n in each if n not in _MARKS} for each in branches]
        none = torch.zeros(1, device=self.context.device)
        marks = {
            name: torch.cat([each.get(name, none) for each in branches])
            for name in _MARKS
            if any(name in each for each in branches)
        }
        return {**join_rows(plain), **marks}

    def predict(self, rows: Rows) -> Tensor:
        params, told = rows.params[0], dict(rows.conditioning)
        noisy = told.pop(NOISY)
        assert params.fps is not None
        frames, height, width = self.layout.grid(params)
        grid = VideoGrid(frames, height, width, params.fps, noisy.shape[1] == 3)
        sound = self.layout.sound_tokens(params)
        tensors: dict[str, Tensor | list[Tensor] | None] = {
            "hidden_states": rows.latents.to(self.context.dtype),
            "timestep": rows.timesteps[:, None] * noisy,
            "sigma": rows.timesteps,
            "rotary": [*self._transformer.rotary(grid, sound)],
            **told,
        }
        static = {"grid": grid, "audio_tokens": sound}
        return self._denoiser(tensors, static, rows.lora)

    def decode_sound(self, state: RequestState) -> None:
        vae, vocoder = self.components["audio_vae"], self.components["vocoder"]
        _, latents = state.running()
        tokens = latents[:, -self.layout.sound_tokens(state.params) :]
        tokens = tokens * vae.latents_std.to(tokens) + vae.latents_mean.to(tokens)
        spectrogram = vae.decode(self.layout.unpack_sound(tokens).to(vae.dtype), return_dict=False)
        state.audio = vocoder(spectrogram[0])[0]
        state.audio_rate = vocoder.config.output_sampling_rate


PIPELINE = LTX2Pipeline
