"""Maps the parameters of `ChromaTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.chroma.config import ChromaConfig
from multimodal_gen.runtime.models.dits.flux.keys import backbone_modules


def chroma_key_map(config: ChromaConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers, norms = backbone_modules(config)
    theirs = "distilled_guidance_layer"
    layers |= {f"approximator.{name}": (f"{theirs}.{name}",) for name in ("in_proj", "out_proj")}
    for i in range(config.approximator_layers):
        for layer in ("linear_1", "linear_2"):
            layers[f"approximator.layers.{i}.{layer}"] = (f"{theirs}.layers.{i}.{layer}",)
        norms[f"approximator.norms.{i}"] = (f"{theirs}.norms.{i}",)
    return keys.parameters(layers, norms)
