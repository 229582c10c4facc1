"""Krea 2 and Krea 2 Turbo, after diffusers' Krea2Pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from multimodal_gen.configs.families.krea2 import DISTILLED_DEFAULTS, KREA2
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.krea2.config import Krea2Config
from multimodal_gen.runtime.models.dits.krea2.keys import krea2_key_map
from multimodal_gen.runtime.models.dits.krea2.model import Krea2Transformer
from multimodal_gen.runtime.models.encoders.cutting import Framed
from multimodal_gen.runtime.models.encoders.qwen3_vl import Qwen3VLEncoder
from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.guiding.formulas import beyond_positive
from multimodal_gen.runtime.pipelines.latents.packed import PATCH, PackedLatents
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import RefinedTexts, Rows, join_padded, text_bucket

_STATES = "encoder_hidden_states"
_BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n"
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n"
_DROPPED = 34  # tokens before the prompt
_LAST = 5  # tokens after it
_LAYERS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)
_DISTILLED_SHIFT = 1.15


class Krea2Pipeline(ComposedPipeline):
    """The reference pads texts in their middle, and masks that; here they are not padded."""

    family = KREA2
    native = NativeTransformer(Krea2Config, Krea2Transformer, krea2_key_map)
    vae_class = QwenImageVAE
    widths: ClassVar = {"transformer.in_channels": ("vae.z_dim",) * PATCH**2}

    def __init__(self, *args: Any, distilled: bool, layers: Sequence[int]) -> None:
        super().__init__(*args)
        self._layers = layers
        self._distilled = distilled
        self._transformer: Krea2Transformer = self.components["transformer"]
        framed = Framed(self.components["tokenizer"], (_BEFORE + "{}").format, _DROPPED - _LAST)
        self.reads.in_one = {"text_encoder": framed}
        self._encoder = Qwen3VLEncoder(
            self.components["tokenizer"], self.components["text_encoder"]
        )
        self._encoder.require(layers, self._transformer.config.text_hidden_dim)
        self._denoiser = self.make_denoiser("transformer")
        self.layout = PackedLatents(self.vae, self.context)
        self.guidance = ClassifierFreeGuidance(beyond_positive, above=0)
        self._texts = RefinedTexts()

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        options = checkpoint.options
        layers = options.get("text_encoder_select_layers") or _LAYERS
        wanted = checkpoint.config("transformer").get("num_text_layers", len(_LAYERS))
        if len(layers) != wanted:
            raise InvalidCheckpoint(
                f"model_index.json: text_encoder_select_layers={list(layers)} must be {wanted} "
                "numbers, which is num_text_layers in transformer/config.json"
            )
        if options.get("patch_size", PATCH) != PATCH:
            raise InvalidCheckpoint(
                f"model_index.json: patch_size={options['patch_size']!r} must be {PATCH}"
            )
        return {"distilled": bool(options.get("is_distilled")), "layers": tuple(layers)}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        distilled = checkpoint.options.get("is_distilled")
        return DISTILLED_DEFAULTS if distilled else cls.family.defaults

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """The states of several layers, [1, T, layers, D]."""
        ids = self._encoder.tokens(_BEFORE + text, length + _DROPPED - _LAST)
        states = self._encoder.layers([*ids, *self._encoder.tokens(_AFTER)], self._layers)
        return {_STATES: states[:, _DROPPED:].to(self.context.dtype)}

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        return join_padded(branches, (_STATES,), to_bucket=self.runners.captures)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{self.layout.grid(state.params)} text {self.text_tokens(state)}"

    def text_tokens(self, state: RequestState) -> int:
        return text_bucket(super().text_tokens(state))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        config = {"max_image_seq_len": 6400, **self.scheduler_config}
        shift = linear_shift(config, self.layout.tokens(params))
        mu = _DISTILLED_SHIFT if self._distilled else shift
        return {"sigmas": falling_sigmas(params), "mu": mu}

    def predict(self, rows: Rows) -> Tensor:
        down, across = self.layout.grid(rows.params[0])
        told = dict(rows.conditioning)
        states, lengths, lora = told.pop(_STATES), told.get("lengths"), rows.lora
        refined = self._transformer.refined
        tensors = {
            "text": self._texts.of(states, lora, lambda: refined(states, lengths, lora)),
            "hidden_states": rows.latents,
            "timestep": (rows.timesteps / 1000).to(rows.latents.dtype),
            "rotary": self._transformer.rotary(states.shape[1], (down, across)),
            **told,
        }
        return self._denoiser(tensors, {"text_tokens": states.shape[1]}, lora)


PIPELINE = Krea2Pipeline
