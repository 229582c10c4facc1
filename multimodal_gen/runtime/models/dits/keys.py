"""Names shared by diffusers' two-stream transformers, as parts of key maps.

A key map lists, for each of our parameters, the tensors of diffusers that make it up, concatenated
along dim 0.
"""

from __future__ import annotations

from collections.abc import Mapping

Modules = dict[str, tuple[str, ...]]
"""Maps our modules' names to diffusers' names."""


def parameters(layers: Mapping[str, tuple[str, ...]], norms: Modules) -> Modules:
    """Expand modules to parameters: layers have weight and bias, norms only weight."""
    kinds = ((layers, ("weight", "bias")), (norms, ("weight",)))
    return {
        f"{ours}.{suffix}": tuple(f"{name}.{suffix}" for name in theirs)
        for modules, suffixes in kinds
        for ours, theirs in modules.items()
        for suffix in suffixes
    }


def each(name: str, letters: str) -> tuple[str, ...]:
    """`name` for each of q, k and v."""
    return tuple(name.format(letter) for letter in letters)


def embedders(*names: str) -> Modules:
    """Embedders of timestep, text and guidance: our `time_embedder` is diffusers'
    `timestep_embedder`."""
    theirs = {"time_embedder": "timestep_embedder"}
    return {
        f"{name}.{layer}": (f"time_text_embed.{theirs.get(name, name)}.{layer}",)
        for name in names
        for layer in ("linear_1", "linear_2")
    }


def image_stream(ours: str, theirs: str) -> Modules:
    """Map a `JointStream` to the image half of block `theirs`."""
    return {
        f"{ours}.qkv": each(f"{theirs}.attn.to_{{}}", "qkv"),
        f"{ours}.attention_out": (f"{theirs}.attn.to_out.0",),
        f"{ours}.mlp_in": (f"{theirs}.ff.net.0.proj",),
        f"{ours}.mlp_out": (f"{theirs}.ff.net.2",),
    }


def text_stream(ours: str, theirs: str) -> Modules:
    """The same for the text half."""
    return {
        f"{ours}.qkv": each(f"{theirs}.attn.add_{{}}_proj", "qkv"),
        f"{ours}.attention_out": (f"{theirs}.attn.to_add_out",),
        f"{ours}.mlp_in": (f"{theirs}.ff_context.net.0.proj",),
        f"{ours}.mlp_out": (f"{theirs}.ff_context.net.2",),
    }
