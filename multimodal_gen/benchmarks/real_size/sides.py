"""The two sides of a comparison: diffusers' module and ours, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn

from multimodal_gen.benchmarks.real_size.denoisers import RealDenoiser
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.products.dense import use_dense_product
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded
from multimodal_gen.runtime.models.compiled.blocks import CompiledBlocks, repeated_blocks

Evaluate = Callable[[], Tensor]
_CPU = torch.device("cpu")
_STORED = {torch.float32: "F32", torch.bfloat16: "BF16"}
_SPREAD = 0.02
"""Standard deviation of random weights: activations stay finite through all layers."""


class Sides:
    """Evaluations of one denoiser in one dtype."""

    def __init__(self, described: RealDenoiser, dtype: torch.dtype, *, tiny: bool = False) -> None:
        self._described = described
        self._dtype = dtype
        self._config = {**described.config, **(described.tiny if tiny else {})}
        self.theirs = self._outline()
        weights = {name: _random(name, each) for name, each in self.theirs.state_dict().items()}
        self.theirs.load_state_dict(weights, assign=True)
        self._modules: dict[Quantization | None, nn.Module] = {}
        self._inputs = described.inputs(self.theirs, dtype)

    def _outline(self) -> Any:
        kind = getattr(diffusers, self._described.class_name)
        with init_empty_weights(include_buffers=False):
            module = kind(**self._config)
        return module.to(self._dtype).eval().requires_grad_(False)

    def diffusers(self, *, compiled: bool) -> Evaluate:
        """Evaluate diffusers' module, with its repeated blocks compiled the way its users do."""
        module = self.theirs
        if compiled:
            # A module of its own: what is compiled stays so.
            module = self._outline()
            module.load_state_dict(self.theirs.state_dict(), assign=True)
            module.compile_repeated_blocks(dynamic=False)
        return lambda: _first(module(**self._inputs[0], return_dict=False))

    def ours(self, *, compiled: bool, quantization: Quantization | None = None) -> Evaluate:
        """Evaluate our module, or diffusers' as our pipelines run it."""
        if quantization not in self._modules:
            self._modules[quantization] = self._ours(quantization)
        module, inputs = self._modules[quantization], dict(self._inputs[1])
        if self._described.native is None:
            inputs["return_dict"] = False
        else:
            _make_for_a_batch(module, inputs)
        blocks = CompiledBlocks(repeated_blocks(module))

        def evaluate() -> Tensor:
            with blocks.made() if compiled else nullcontext():
                return _first(module(**inputs))

        return evaluate

    def _ours(self, quantization: Quantization | None) -> nn.Module:
        native, weights = self._described.native, self.theirs.state_dict()
        if native is None:
            wrapped: nn.Module = self._outline()
            wrapped.load_state_dict(weights, assign=True)
            use_dense_product(wrapped)
            return wrapped
        config = native.config_class.from_dict(self.theirs.config)
        with torch.device("meta"):
            parts = make_parts(Mesh(), select_attention("auto", _CPU))
            module = native.make(config, parts).eval().requires_grad_(False)
        fill(
            module,
            {name: HeldTensor(each, _STORED[each.dtype]) for name, each in weights.items()},
            native.key_map(config),
            name="transformer",
            device=_CPU,
            dtype=self._dtype,
            quantization=WhenLoaded(quantization, quantizes_inputs=True) if quantization else None,
        )
        return module


def _random(name: str, like: Tensor) -> Tensor:
    """Random numbers in place of a weight; those of norms are near 1."""
    mean = float("norm" in name and name.endswith("weight") and like.dim() == 1)
    return torch.empty(like.shape, dtype=like.dtype).normal_(mean, _SPREAD)


def _make_for_a_batch(module: Any, inputs: dict[str, Any]) -> None:
    """Put what the families' pipelines make once a batch into a module's inputs: the rotary table
    and, if it refines texts, their states."""
    text = inputs["encoder_hidden_states"].shape[1]
    if "grids" in inputs:
        inputs["rotary"] = module.rotary(text, inputs.pop("grids"))
    elif "latents" in inputs:
        states, sizes = inputs.pop("encoder_hidden_states"), inputs["latents"].shape[2:]
        inputs["rotary"] = rotary = module.rotary(sizes, text, None)
        inputs |= {"text": module.refined(states, rotary, None, None), "text_tokens": text}
    else:
        inputs["rotary"] = module.rotary(inputs["hidden_states"].shape[2:])


def _first(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def likeness(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference, relative to that of `theirs`."""
    difference = ours.float().flatten() - theirs.float().flatten()
    return float(difference.norm() / theirs.float().norm())
