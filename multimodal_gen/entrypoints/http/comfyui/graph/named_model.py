"""The served model that a graph is for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from multimodal_gen.entrypoints.http.comfyui.errors import InvalidPrompt
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.loaders import DENOISER_FILES


def named_model(prompt: object, served: Collection[str]) -> str | None:
    """The model that the graph's loaders name; None: they name none, or there is only one.

    Raises InvalidPrompt for a model that is not served, and for several of those that are.
    """
    if len(served) < 2:
        return None
    names = dict.fromkeys(_names(prompt))
    listed = ", ".join(map(repr, served))
    for name in names:
        if name not in served:
            message = f"Value not in list: model {name[:100]!r} is not served; available: {listed}"
            raise InvalidPrompt("model_not_found", message, name[:100])
    if len(names) > 1:
        message = f"a graph has one model, and this one has {', '.join(map(repr, names))}"
        raise InvalidPrompt("several_models", message)
    return next(iter(names), None)


def _names(prompt: object) -> Iterator[str]:
    """Anything may have been sent; the graph is checked later."""
    for node in prompt.values() if isinstance(prompt, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict):
            name = inputs.get(DENOISER_FILES.get(str(node.get("class_type")), ""))
            if isinstance(name, str):
                yield name
