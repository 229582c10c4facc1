"""All nodes of this server, by name."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.entrypoints.http.comfyui.graph.definition import NodeDefinitions, by_name
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.conditioning import conditioning
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.controls import control_nodes
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.images import images
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.latents import latents
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.loaders import loaders
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.logic import logic
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.outputs import outputs
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.sampling import sampling
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.upscaling import upscaling
from multimodal_gen.messages.model_info import ModelInfo


def definitions_for(
    model: ModelInfo,
    *,
    uploads: Sequence[str] = (),
    loras: Sequence[str] = (),
    controls: Sequence[str] = (),
    served: Sequence[str] = (),
    upscalers: Sequence[str] = (),
) -> NodeDefinitions:
    """Nodes, with choices that depend on the model, the names of all that are served, and the
    client's uploads."""
    return by_name(
        (
            *loaders(model, loras, served),
            *conditioning(model),
            *control_nodes(controls),
            *latents(model),
            *images(uploads),
            *sampling(model),
            *upscaling(upscalers),
            *outputs(model),
            *logic(),
        )
    )
