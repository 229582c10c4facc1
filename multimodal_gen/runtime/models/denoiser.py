"""One evaluation of a denoiser: takes tensors and static facts, returns a prediction.

A denoiser is pure: the same arguments give the same prediction, and nothing else changes. Each way
to run the module is a class with this call, selected when the pipeline is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.lora_hooks import LoraHooks
from multimodal_gen.runtime.residency.block_stream import BlockStream

Tensors = Mapping[str, Tensor | list[Tensor] | None]
"""Module arguments that may differ between evaluations, [R, ...] for R rows."""
Static = Mapping[str, Any]
"""Module arguments that are equal for all evaluations with one batch key: plain values."""


class Denoiser(Protocol):
    """(tensors, static facts, LoRAs of the rows) -> the prediction [R, ...]."""

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor: ...


class EagerDenoiser:
    """Runs a transformer of this project, operation by operation."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        prediction: Tensor = self._module(**tensors, **(static or {}), lora=lora)
        return prediction


class StreamedDenoiser:
    """Runs a module whose blocks are copied to the device while others run."""

    def __init__(self, denoiser: Denoiser, stream: BlockStream) -> None:
        self._denoiser = denoiser
        self._stream = stream

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        with self._stream.evaluation():
            return self._denoiser(tensors, static, lora)


class WrappedDenoiser:
    """Runs a UNet or transformer of diffusers: the latents are its first argument.

    `added` lists the tensors that the module takes inside `added_cond_kwargs`.
    """

    def __init__(self, module: Any, hooks: LoraHooks, added: tuple[str, ...] = ()) -> None:
        self._module = module
        self._hooks = hooks
        self._added = added
        self._dtype = module.dtype

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        arguments: dict[str, Any] = {**tensors, **(static or {})}
        latents: Tensor = arguments.pop("latents")
        if self._added:
            arguments["added_cond_kwargs"] = {name: arguments.pop(name) for name in self._added}
        with self._hooks.applied(lora):
            prediction: Tensor = self._module(
                latents.to(self._dtype), return_dict=False, **arguments
            )[0]
        return prediction
