"""Config of an LTX-2 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape

StreamName = Literal["video", "audio"]
STREAMS: tuple[StreamName, ...] = ("video", "audio")


class StreamSizes(NamedTuple):
    """Sizes of one of the two streams."""

    channels: int
    """Channels of its latents."""
    heads: int
    width: int
    """Features of a head."""
    seen: int
    """Width of the text tokens that it attends to."""
    gated: bool
    """Whether each head's output is multiplied by a gate that is computed from the input."""

    @property
    def dim(self) -> int:
        """Features of a token."""
        return self.heads * self.width


@dataclass(frozen=True)
class LTX2Config(TransformerConfig):
    """The fields and defaults of diffusers' LTX2VideoTransformer3DModel, for LTX-2.0 and 2.3."""

    title: ClassVar = "LTX-2"
    smallest: ClassVar = {
        "in_channels": 1,
        "out_channels": 1,
        "num_attention_heads": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 1,
        "pos_embed_max_pos": 1,
        "base_height": 1,
        "base_width": 1,
        "audio_in_channels": 1,
        "audio_out_channels": 1,
        "audio_num_attention_heads": 1,
        "audio_attention_head_dim": 2,
        "audio_cross_attention_dim": 1,
        "audio_scale_factor": 1,
        "audio_pos_embed_max_pos": 1,
        "audio_sampling_rate": 1,
        "audio_hop_length": 1,
        "num_layers": 1,
        "caption_channels": 1,
        "causal_offset": 0,
    }

    in_channels: int = 128
    out_channels: int | None = 128
    patch_size: int = 1
    patch_size_t: int = 1
    num_attention_heads: int = 32
    attention_head_dim: int = 128
    cross_attention_dim: int = 4096
    vae_scale_factors: tuple[int, int, int] = (8, 32, 32)
    pos_embed_max_pos: int = 20
    base_height: int = 2048
    base_width: int = 2048
    gated_attn: bool = False
    cross_attn_mod: bool = False
    audio_in_channels: int = 128
    audio_out_channels: int | None = 128
    audio_patch_size: int = 1
    audio_patch_size_t: int = 1
    audio_num_attention_heads: int = 32
    audio_attention_head_dim: int = 64
    audio_cross_attention_dim: int = 2048
    audio_scale_factor: int = 4
    audio_pos_embed_max_pos: int = 20
    audio_sampling_rate: int = 16000
    audio_hop_length: int = 160
    audio_gated_attn: bool = False
    audio_cross_attn_mod: bool = False
    num_layers: int = 48
    activation_fn: str = "gelu-approximate"
    qk_norm: str = "rms_norm_across_heads"
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-6
    caption_channels: int = 3840
    attention_bias: bool = True
    attention_out_bias: bool = True
    rope_theta: float = 10000.0
    rope_double_precision: bool = True
    causal_offset: int = 1
    timestep_scale_multiplier: float = 1000
    cross_attn_timestep_scale_multiplier: float = 1000
    rope_type: str = "interleaved"
    use_prompt_embeddings: bool = True
    perturbed_attn: bool = False
    ff_bias: bool = True
    audio_ff_bias: bool = True
    use_prompt_adaln_single: bool = True

    def check(self) -> None:
        for name in ("attention_head_dim", "audio_attention_head_dim"):
            if getattr(self, name) % 2:
                raise self.invalid(name, "even")
        known: dict[str, tuple[object, ...]] = {
            "activation_fn": ("gelu-approximate",),
            "qk_norm": ("rms_norm_across_heads",),
            "norm_elementwise_affine": (False,),
            "rope_type": ("interleaved", "split"),
            "use_prompt_adaln_single": (True,),
            "audio_cross_attn_mod": (self.cross_attn_mod,),
            "audio_in_channels": (self.in_channels,),
            "out_channels": (self.in_channels, None),
            "audio_out_channels": (self.in_channels, None),
            "cross_attention_dim": (self.stream("video").dim,),
            "audio_cross_attention_dim": (self.stream("audio").dim,),
            **dict.fromkeys(("patch_size", "patch_size_t"), (1,)),
            **dict.fromkeys(("audio_patch_size", "audio_patch_size_t"), (1,)),
            **dict.fromkeys(("attention_bias", "attention_out_bias"), (True,)),
            **dict.fromkeys(("ff_bias", "audio_ff_bias"), (True,)),
        }
        if self.rope_type == "split":
            known["audio_num_attention_heads"] = (self.num_attention_heads,)
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise self.invalid(name, " or ".join(map(repr, allowed)))
        factors = self.vae_scale_factors
        if not isinstance(factors, tuple) or len(factors) != 3 or not all(map(_counts, factors)):
            raise self.invalid("vae_scale_factors", "three whole numbers above 0")
        self.check_positive(
            "norm_eps",
            "rope_theta",
            "timestep_scale_multiplier",
            "cross_attn_timestep_scale_multiplier",
        )

    def stream(self, name: StreamName) -> StreamSizes:
        if name == "video":
            heads, width = self.num_attention_heads, self.attention_head_dim
            gated, channels = self.gated_attn, self.in_channels
            return StreamSizes(channels, heads, width, self.cross_attention_dim, gated)
        heads, width = self.audio_num_attention_heads, self.audio_attention_head_dim
        gated, channels = self.audio_gated_attn, self.audio_in_channels
        return StreamSizes(channels, heads, width, self.audio_cross_attention_dim, gated)

    @property
    def vectors(self) -> int:
        """Vectors per token that modulate a stream: shift, scale and gate of attention and of the
        MLP, and in LTX-2.3 of the attention to the text."""
        return 9 if self.cross_attn_mod else 6

    @property
    def skipping_block(self) -> int | None:
        """Block whose self-attention is left out in spatio-temporal guidance: 28 of 48, as is
        recommended for LTX-2.3. None for models that have no such guidance."""
        return self.num_layers * 28 // 48 if self.perturbed_attn else None

    @property
    def shape(self) -> TransformerShape:
        """Three attentions and the MLP, each with a sum, in both streams; norms over all heads of
        queries and keys. Ranks share the tokens of the video, and all have the sound's."""
        video, audio = (self.stream(name).dim for name in STREAMS)
        cross = 2 * video * audio  # queries and results of the video's attention to the sound
        block = 14 * video**2 + 2 * cross
        return TransformerShape(
            width=video,
            heads=self.num_attention_heads,
            channels=self.in_channels,
            attentions=self.num_layers,
            sums=4 * self.num_layers,
            reductions=16 * self.num_layers,
            norms=4 * self.num_layers,
            token_weights=self.num_layers * block,
            all_weights=self.num_layers * (block + 2 * video**2 + 16 * audio**2 + 2 * cross),
        )


def _counts(value: object) -> bool:
    return isinstance(value, int) and value > 0
