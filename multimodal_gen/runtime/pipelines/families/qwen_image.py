"""Qwen-Image, after diffusers' QwenImagePipeline, QwenImageImg2ImgPipeline and
QwenImageInpaintPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from multimodal_gen.configs.families.qwen_image import QWEN_IMAGE
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.keys import qwen_image_key_map
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.encoders.cutting import Framed
from multimodal_gen.runtime.models.encoders.qwen import QwenEncoder
from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.guidance import TrueCfgGuidance
from multimodal_gen.runtime.pipelines.guiding.formulas import keeping_norm
from multimodal_gen.runtime.pipelines.latents.packed import PATCH, PackedLatents
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows, join_padded, text_bucket

_SYSTEM = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:"
)
_TEMPLATE = (
    "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_DROPPED = 34  # tokens of the template before the prompt
_LONGEST = 1024  # maximum tokens of a prompt with the end of the template


class QwenImagePipeline(ComposedPipeline):
    """Texts differ in length; batch rows are padded to the longest, and attention is masked."""

    family = QWEN_IMAGE
    native = NativeTransformer(QwenImageConfig, QwenImageTransformer, qwen_image_key_map)
    vae_class = QwenImageVAE
    supports_control = True
    widths: ClassVar = {
        "transformer.in_channels": ("vae.z_dim",) * PATCH**2,
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._encoder = self.make_encoder()
        self._transformer: QwenImageTransformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        self.layout = PackedLatents(self.vae, self.context)
        self.guidance = TrueCfgGuidance(keeping_norm)
        self.start = PictureStart(self.layout, flow_model_start)
        width, wanted = self._encoder.width, self._transformer.config.joint_attention_dim
        if width != wanted:
            raise InvalidCheckpoint(
                f"transformer/config.json: joint_attention_dim={wanted} does not match the text "
                f"encoder's hidden_size={width}"
            )

    def make_encoder(self) -> QwenEncoder:
        """Prompts are cut here, but not by subclasses that show it images."""
        framed = Framed(self.components["tokenizer"], partial(chat, _SYSTEM), _DROPPED)
        self.reads.in_one = {"text_encoder": framed}
        return QwenEncoder(self.components["tokenizer"], self.components["text_encoder"])

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        """Load the text encoder without its last layer, which would predict words."""
        loaded = super().load_component(checkpoint, name, context)
        return loaded.model if name == "text_encoder" else loaded

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        states = self._encoder(chat(_SYSTEM, text), _LONGEST + _DROPPED)[:, _DROPPED:]
        return {"encoder_hidden_states": states[:, :length].to(self.context.dtype)}

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        return join_padded(branches, ("encoder_hidden_states",), to_bucket=self.runners.captures)

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{self.grids(state)} text {self.text_tokens(state)}"

    def text_tokens(self, state: RequestState) -> int:
        return text_bucket(super().text_tokens(state))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        mu = linear_shift(self.scheduler_config, self.layout.tokens(params))
        return {"sigmas": falling_sigmas(params), "mu": mu, "sigmas_for_all": True}

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens down and across of the output and of conditioning images."""
        down, across = self.layout.grid(state.params)
        return ((down, across),)

    def predict(self, rows: Rows) -> Tensor:
        text = rows.conditioning["encoder_hidden_states"].shape[1]
        tensors = {
            "hidden_states": rows.latents,
            "timestep": rows.timesteps.to(rows.latents.dtype) / 1000,
            "rotary": self._transformer.rotary(text, self.grids(rows.states[0])),
            **rows.conditioning,
        }
        with rows.controlled(tensors) as controlled:
            return self._denoiser(controlled, lora=rows.lora)


def chat(system: str, user: str) -> str:
    """Format Qwen's chat, up to the start of the assistant's answer."""
    return _TEMPLATE.format(system, user)


PIPELINE = QwenImagePipeline
