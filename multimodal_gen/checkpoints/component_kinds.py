"""Kinds of text encoders and VAEs that weight files hold, recognised by their tensors' names."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ComponentKind:
    """A kind of component. Patterns are of whole names, without the prefix that they have in files
    of several components."""

    title: str
    component: str
    """Its usual name in a checkpoint."""
    classes: tuple[str, ...]
    """Classes of diffusers or transformers that can hold it; none if no family uses it."""
    has: tuple[str, ...]
    """Patterns that each match a name."""
    lacks: tuple[str, ...] = ()
    """Patterns that match no name."""

    def matches(self, names: str) -> bool:
        """True if these names, one per line, are of this kind."""
        return all(_found(pattern, names) for pattern in self.has) and not any(
            _found(pattern, names) for pattern in self.lacks
        )


def _found(pattern: str, names: str) -> bool:
    return re.search(f"^(?:{pattern})$", names, re.MULTILINE) is not None


_LAYER = r"(?:model\.|language_model\.|model\.language_model\.|language_model\.model\.)?layers\.0\."
_QUERY = rf"{_LAYER}self_attn\.q_proj\.weight|blk\.0\.attn_q\.weight"
_NORMED_QUERY = rf"{_LAYER}self_attn\.q_norm\.weight|blk\.0\.attn_q_norm\.weight"
_BIASED_QUERY = rf"{_LAYER}self_attn\.q_proj\.bias|blk\.0\.attn_q\.bias"
_FOUR_NORMS = rf"{_LAYER}post_feedforward_layernorm\.weight|blk\.0\.post_ffw_norm\.weight"
_T5 = (
    r"encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight|enc\.blk\.0\.attn_q\.weight"
    r"|blocks\.0\.ffn\.gate\.0\.weight"
)
_UMT5 = (
    r"encoder\.block\.1\.layer\.0\.SelfAttention\.relative_attention_bias\.weight"
    r"|enc\.blk\.1\.attn_rel_b\.weight|blocks\.1\.pos_embedding\.embedding\.weight"
)
_MIDDLE = r"decoder\.(?:mid\.block_1|mid_block\.resnets\.0)"
_IN = r"decoder\.conv_in"

KINDS = (
    ComponentKind("a UMT5 text encoder", "text_encoder", ("UMT5EncoderModel",), (_T5, _UMT5)),
    ComponentKind("a T5 text encoder", "text_encoder", ("T5EncoderModel",), (_T5,), (_UMT5,)),
    ComponentKind(
        "a CLIP text encoder",
        "text_encoder",
        ("CLIPTextModel", "CLIPTextModelWithProjection"),
        (
            r"(?:text_model\.)?encoder\.layers\.0\.mlp\.fc1\.weight"
            r"|transformer\.resblocks\.0\.ln_1\.weight",
            r"(?:(?:text_model\.)?embeddings\.)?token_embedding\.weight",
        ),
    ),
    ComponentKind(
        "a CLIP image encoder",
        "image_encoder",
        ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
        (r"(?:vision_model\.)?embeddings\.class_embedding",),
    ),
    ComponentKind(
        "a Gemma 3 text encoder", "text_encoder", (), (_QUERY, _FOUR_NORMS, _NORMED_QUERY)
    ),
    ComponentKind(
        "a Gemma 2 text encoder", "text_encoder", ("Gemma2Model",), (_QUERY, _FOUR_NORMS)
    ),
    ComponentKind(
        "a Qwen3-VL text encoder",
        "text_encoder",
        ("Qwen3VLForConditionalGeneration", "Qwen3VLModel"),
        (_QUERY, _NORMED_QUERY, r"(?:model\.)?visual\.blocks\.0\..*"),
    ),
    ComponentKind(
        "a Qwen3 text encoder",
        "text_encoder",
        ("Qwen3Model", "Qwen3ForCausalLM"),
        (_QUERY, _NORMED_QUERY),
    ),
    ComponentKind(
        "a Qwen2.5-VL text encoder",
        "text_encoder",
        ("Qwen2_5_VLForConditionalGeneration",),
        (_QUERY, _BIASED_QUERY),
    ),
    ComponentKind(
        "a Llama or Mistral text encoder",
        "text_encoder",
        ("LlamaModel", "Mistral3ForConditionalGeneration"),
        (_QUERY,),
    ),
    ComponentKind(
        "the VAE of FLUX.2",
        "vae",
        ("AutoencoderKLFlux2",),
        (rf"{_MIDDLE}\.conv1\.weight", r"bn\.running_mean"),
    ),
    ComponentKind(
        "a VAE of Wan or Qwen-Image",
        "vae",
        ("AutoencoderKLWan", "AutoencoderKLQwenImage", "AutoencoderKLQwenImage21"),
        (r"decoder\.middle\.0\.residual\.0\.gamma|decoder\.mid_block\.resnets\.0\.norm1\.gamma",),
    ),
    ComponentKind(
        "the VAE of CogVideoX",
        "vae",
        ("AutoencoderKLCogVideoX",),
        (rf"{_MIDDLE}\.norm1\.norm_layer\.weight",),
    ),
    ComponentKind(
        "the VAE of HunyuanVideo",
        "vae",
        ("AutoencoderKLHunyuanVideo",),
        (rf"{_MIDDLE}\.conv1\.conv\.weight", rf"{_MIDDLE}\.norm1\.weight"),
    ),
    ComponentKind(
        "a VAE of LTX-Video or LTX-2",
        "vae",
        ("AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video"),
        (
            r"decoder\.up_blocks\.0\.res_blocks\.0\.conv1\.conv\.weight"
            rf"|{_MIDDLE}\.conv1\.conv\.weight",
            r"(?:per_channel_statistics\.std-of-means|latents_std)",
        ),
    ),
    ComponentKind(
        "a DC-AE, the VAE of Sana",
        "vae",
        ("AutoencoderDC",),
        (
            r"decoder\.project_in(?:\.main)?\.conv\.weight"
            r"|decoder\.conv_in\.weight",
            r"decoder\.stages\.0\..*|decoder\.up_blocks\.0\.[01]\..*",
        ),
    ),
    ComponentKind(
        "a VAE of Stable Diffusion's kind",
        "vae",
        ("AutoencoderKL",),
        (rf"{_MIDDLE}\.conv1\.weight", rf"{_MIDDLE}\.norm1\.weight"),
    ),
)
"""The first that matches counts."""


def kind_of(names: list[str]) -> ComponentKind | None:
    """Kind of the component that has tensors of these names; None if it is not known."""
    listed = "\n".join(names)
    return next((kind for kind in KINDS if kind.matches(listed)), None)
