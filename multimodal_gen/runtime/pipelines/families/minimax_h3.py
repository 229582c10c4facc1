"""MiniMax-H3, after diffusers' MiniMaxH3ModularPipeline: videos with sound from a text, from a
first and a last frame, or from references."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.checkpoints.scheduler_config import scheduler_config
from multimodal_gen.configs.families.minimax_h3 import LAYERS, MINIMAX_H3
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.model_info import TaskName
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.distributed.device_copies import copied, tensor_of
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import PictureProcessor
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config
from multimodal_gen.runtime.models.dits.minimax_h3.keys import minimax_h3_key_map
from multimodal_gen.runtime.models.dits.minimax_h3.model import Counts, MiniMaxH3Transformer
from multimodal_gen.runtime.models.encoders.qwen import IMAGE_TOKEN
from multimodal_gen.runtime.models.encoders.qwen3_vl import Qwen3VLEncoder, without_last_norm
from multimodal_gen.runtime.models.schedulers.in_two_parts import SolverInTwoParts
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.minimax_h3 import MiniMaxH3VAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.minimax_h3_pictures import (
    Use,
    ends_of,
    fitted_frames,
    fitted_reference,
    pixels_of,
    use_of,
)
from multimodal_gen.runtime.pipelines.families.minimax_h3_positions import (
    LatentGrid,
    with_frames,
    with_references,
)
from multimodal_gen.runtime.pipelines.guidance import NoGuidance
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.latents.numbers_with_sound import NumbersWithSound
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import RefinedTexts, Rows, join_padded, text_bucket

_TRANSFORMERS: Mapping[Use, str] = {
    "none": "transformer",
    "frames": "transformer",
    "references": "transformer_ref",
}
_TOKENS = ("<|vision_start|>", IMAGE_TOKEN, "<|vision_end|>")
_SHOWN = "".join(_TOKENS)
_FPS, _SOUND_PER_SECOND = 24, 40
_KEPT = 0.999
"""Timestep of given pictures: they have a little noise."""
_SHORT_EDGE = "reference_image_short_edge"
_SCHEDULER = "MiniMaxH3Scheduler"
_SHIFT = 12.0
_TOLD = ("encoder_hidden_states", "text_rotary", "rotary", "given")


class MiniMaxH3Pipeline(ComposedPipeline):
    """Latents are the numbers of the video's tokens and then of the sound's, each with a schedule
    of its own. Given pictures are tokens of the sequence that stay as they are."""

    family = MINIMAX_H3
    native = NativeTransformer(MiniMaxH3Config, MiniMaxH3Transformer, minimax_h3_key_map)
    vae_class = MiniMaxH3VAE
    tokens_beside = ("given",)

    layout: NumbersWithSound

    def __init__(self, *args: Any, sound_schedule: Mapping[str, Any], short_edge: int) -> None:
        super().__init__(*args)
        self._sound_schedule = sound_schedule
        self._short_edge = short_edge
        processor: PictureProcessor = self.components["processor"] or PictureProcessor(None, None)
        self._encoder = Qwen3VLEncoder(
            processor.tokenizer, self.components["text_encoder"], processor.image_processor
        )
        names = self.components_of_kind("transformer")
        self._transformers: dict[str, MiniMaxH3Transformer] = {
            name: self.components[name] for name in names
        }
        self._denoisers = {name: self.make_denoiser(name) for name in names}
        patch = self._transformers[names[0]].config.patch_size
        self.layout = NumbersWithSound(
            self.vae, self.components["audio_vae"], self.context, patch, _SOUND_PER_SECOND, _FPS
        )
        self.guidance = NoGuidance()
        self._texts = RefinedTexts()

    # -- properties of the checkpoint

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        names = [each for each in _TRANSFORMERS.values() if not cls.is_absent(checkpoint, each)]
        if not names:
            raise InvalidCheckpoint(
                f"{checkpoint.index}: {checkpoint.pipeline_class} needs a transformer or a "
                "transformer_ref, each in a folder of its own in the checkpoint"
            )
        for name in dict.fromkeys(names):
            checkpoint.require_width(f"{name}.in_channels", ("vae.latent_channels",))
            checkpoint.require_width(f"{name}.audio_in_channels", ("audio_vae.latent_channels",))
            checkpoint.require_width(f"{name}.text_dim", ("text_encoder.text_config.hidden_size",))
        layers = checkpoint.config("text_encoder").get("text_config", {}).get("num_hidden_layers")
        if isinstance(layers, int) and layers <= LAYERS:
            raise InvalidCheckpoint(
                f"text_encoder/config.json: num_hidden_layers={layers} must be more than {LAYERS}"
            )

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        edge = checkpoint.options.get(_SHORT_EDGE, 2048)
        if not isinstance(edge, int) or not 32 <= edge <= 8192:
            raise InvalidCheckpoint(
                f"{checkpoint.index}: {_SHORT_EDGE}={edge!r} must be 32 to 8192"
            )
        checkpoint.require("audio_scheduler", (_SCHEDULER,))
        config = scheduler_config(checkpoint.folder, _SCHEDULER, "audio_scheduler")
        return {"sound_schedule": _as_flow(config), "short_edge": edge}

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return _as_flow(super().solver_config(checkpoint))

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        """The states before the text encoder's last norm are the conditioning."""
        loaded = super().load_component(checkpoint, name, context)
        return without_last_norm(loaded) if name == "text_encoder" else loaded

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        have: dict[str, tuple[TaskName, ...]] = {
            "transformer": ("text-to-video", "image-to-video"),
            "transformer_ref": ("reference-to-video",),
        }
        return tuple(task for name in self._transformers for task in have[name])

    def _use(self, state: RequestState) -> Use:
        return use_of(state.params, state.pictures, self.tasks)

    def _name(self, state: RequestState) -> str:
        """Name of the transformer for a request."""
        return _TRANSFORMERS[self._use(state)]

    # -- generation

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = state.params.prompt
        for token in _TOKENS:
            if token in text:
                raise InvalidRequest("prompt", text, f"must not contain {token}")
        shown = self._fitted(state)
        seen = ((each.size, hashlib.sha256(each.tobytes()).digest()) for each in shown)
        return self.prompts.remembered(state, (text, *seen), lambda: self._encode(text, shown))

    def _fitted(self, state: RequestState) -> list[PIL.Image.Image]:
        """Given pictures at the sizes at which text encoder and transformer see them."""
        use = self._use(state)
        if use == "frames":
            return fitted_frames(state.pictures, *size_of(state.params))
        images = images_of(state.pictures) if use == "references" else []
        multiple = self.size_multiple
        return [fitted_reference(each, self._short_edge, multiple) for each in images]

    def _encode(self, text: str, shown: Sequence[PIL.Image.Image]) -> Conditioning:
        """States of the images' tokens and of the others, and the places of both in the text."""
        labels = (f"<Picture {i}>: {_SHOWN}" for i, _ in enumerate(shown, 1))
        states, is_seen = self._encoder.tagged("".join(labels) + text or " ", shown)
        found: Conditioning = {}
        for prefix, mask in (("", ~is_seen), ("seen_", is_seen)):
            places = mask.nonzero().squeeze(1)
            own = copied(places, states.device)
            found[f"{prefix}states"] = states[:, own].to(self.context.dtype)
            found[f"{prefix}places"] = own.float()[None]
        return found

    def prepare(self, state: RequestState) -> None:
        """Draw noise for each given picture, then for the video, then for the sound."""
        assert isinstance(self.vae, MiniMaxH3VAE)
        given = [self.vae.encode_frames(pixels_of(each)) for each in self._fitted(state)]
        noisy = [self.layout.pack(_with_noise(each, state.generator)) for each in given]
        super().prepare(state)
        (told,) = state.conditioning.values()
        told["encoder_hidden_states"] = torch.cat((told["seen_states"], told["states"]), dim=1)
        if noisy:
            told["given"] = torch.cat(noisy, dim=1)
        grids = [self._grid_of(each.shape) for each in given]
        self._place(state, told, grids)

    def _place(self, state: RequestState, told: Conditioning, given: Sequence[LatentGrid]) -> None:
        """Add rotary tables for the sequence with these pictures."""
        params, rotary = state.params, self._transformers[self._name(state)].rotary
        sound, text = self.layout.sound_latents(params), told["encoder_hidden_states"].shape[1]
        output = self._grid_of(self.layout.shape(params))
        places = (
            with_references(output, sound, text, given)
            if self._use(state) == "references"
            else with_frames(output, sound, text, ends_of(state.pictures))
        )
        told["rotary"] = rotary(copied(places.float(), self.context.device))
        times = torch.cat((told["seen_places"], told["places"]), dim=1)
        told["text_rotary"] = rotary(F.pad(times.unsqueeze(-1), (0, 2)))

    def _grid_of(self, shape: Sequence[int]) -> LatentGrid:
        """Grid of the VAE's latents [..., T, h, w]."""
        frames, height, width = shape[-3:]
        return LatentGrid(frames, height, width, self.layout.patch)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        size = (*size_of(state.params), state.params.num_frames)
        text = f"{self._counts(state).seen} seen of {self.text_tokens(state)}"
        (told,) = state.conditioning.values()
        given = told["given"].shape[1] if "given" in told else 0
        return f"{self._name(state)} {size} {given} given {text}"

    def text_tokens(self, state: RequestState) -> int:
        return text_bucket(super().text_tokens(state))

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        used = [{name: each[name] for name in _TOLD if name in each} for each in branches]
        if not used:
            return {}
        told = join_padded(used, _TOLD[:2], to_bucket=self.runners.captures)
        told["rotary"] = torch.cat((told["rotary"], told.pop("text_rotary")), dim=1)
        return told

    # -- schedule

    def solver(self, params: SamplingParams, generator: torch.Generator) -> Solver:
        """One for the video, one for the sound, whose schedule is the checkpoint's own."""
        steps = params.num_inference_steps
        if steps == 1:
            raise InvalidRequest("num_inference_steps", 1, "at least 2: the last level is 0")
        schedule = Schedule.of(params, **self.schedule(params))
        sound = make_solver(
            self._sound_schedule,
            replace(schedule, flow_shift=None),
            name=params.scheduler,
            generator=generator,
            device=self.context.device,
        )
        video = super().solver(params, generator)
        return SolverInTwoParts(video, sound, self.layout.video_numbers(params))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        """The last of the steps' noise levels is 0, where there is nothing to evaluate."""
        assert params.num_inference_steps is not None
        levels = torch.linspace(1, 0, params.num_inference_steps, dtype=torch.float32)
        return {"sigmas": levels[:-1].tolist(), "sigmas_for_all": True}

    # -- prediction

    def denoisers_now(self, states: Sequence[RequestState]) -> tuple[str, ...]:
        return (self._name(states[0]),)

    def _counts(self, state: RequestState) -> Counts:
        (told,) = state.conditioning.values()
        return Counts(
            video=self.layout.video_tokens(state.params),
            given=told["given"].shape[1] if "given" in told else 0,
            sound=self.layout.sound_tokens(state.params),
            given_sound=0,
            seen=told["seen_states"].shape[1],
        )

    def predict(self, rows: Rows) -> Tensor:
        state, told = rows.states[0], dict(rows.conditioning)
        states, refined = told.pop("encoder_hidden_states"), self._transformers[self._name(state)]
        told["text"] = self._texts.of(
            states, rows.lora, lambda: refined.refined(states, told.get("lengths"), rows.lora)
        )
        video, sound = self.layout.split(rows.latents, state.params)
        clean = 1 - rows.timesteps / 1000
        if (given := told.pop("given", None)) is not None:
            video = torch.cat((video, given), dim=1)
            clean = torch.cat((clean, clean[:, :1].clamp(min=_KEPT)), dim=1)
        tensors = {
            "hidden_states": video,
            "audio_hidden_states": sound,
            "timestep": clean,
            **told,
        }
        static = {"counts": self._counts(state)}
        return -self._denoisers[self._name(state)](tensors, static, rows.lora)

    # -- decoding

    def decode_sound(self, state: RequestState) -> None:
        vae = self.components["audio_vae"]
        _, latents = state.running()
        sound = self.layout.unpack_sound(latents, state.params)
        mean, std = (
            tensor_of(getattr(vae.config, f"latents_{name}"), sound.device).view(1, -1, 1)
            for name in ("mean", "std")
        )
        decoded = vae.decode(sound * std + mean, return_dict=False)[0]  # [channels, 1, samples]
        state.audio = decoded[:, 0]
        state.audio_rate = vae.config.sampling_rate


def _as_flow(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule as that of another class, which is the same but for the sign of velocities and
    for timesteps, which here are noise levels."""
    if config["_class_name"] != _SCHEDULER:
        return dict(config)
    return {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": config.get("shift", _SHIFT)}


def _with_noise(latents: Tensor, generator: torch.Generator) -> Tensor:
    noise = copied(torch.randn(latents.shape, generator=generator), latents.device)
    return _KEPT * latents + (1 - _KEPT) * noise


PIPELINE = MiniMaxH3Pipeline
