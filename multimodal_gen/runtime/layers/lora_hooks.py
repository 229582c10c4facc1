"""LoRA for library modules, which are not passed the rows: by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.normalization import RMSNorm as DiffusersRMSNorm
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.lora import LoraBank, LoraRows
from multimodal_gen.runtime.layers.lora_terms import LoraLayer, Term
from multimodal_gen.runtime.layers.products.dense import dense_product
from multimodal_gen.runtime.layers.quantized.library import KeptLinear

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLVE: Mapping[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
"""By the number of a kernel's dimensions."""
LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, *_CONVOLUTIONS)
"""Types of library modules that support LoRA."""
_RMS_NORMS = (nn.RMSNorm, DiffusersRMSNorm)
NORMS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.GroupNorm, *_RMS_NORMS)
"""Types of library modules whose weights may differ from row to row."""


class LoraHooks:
    """Hooks on the library modules of one pipeline, and the rows that they apply to."""

    def __init__(self) -> None:
        self._banks: dict[nn.Module, tuple[LoraBank, Any]] = {}
        self._rows: LoraRows | None = None

    def add(self, module: nn.Module, key: int, terms: Sequence[Term]) -> None:
        if module not in self._banks:
            bank = LoraBank()
            hook = partial(self._hook, bank, _layer_of(module))
            self._banks[module] = (bank, module.register_forward_hook(hook))
        self._banks[module][0].add(key, terms)

    def remove(self, key: int) -> None:
        """Free the terms of LoRA `key` in all modules."""
        for module, (bank, handle) in list(self._banks.items()):
            bank.remove(key)
            if not bank:
                handle.remove()
                del self._banks[module]

    @contextmanager
    def applied(self, rows: LoraRows | None) -> Iterator[None]:
        """Context in which library modules are called with batches of these rows."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def _hook(
        self, bank: LoraBank, layer: LoraLayer, _: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        # In place: the output is the module's own, and nothing else uses it yet.
        if self._rows is not None:
            bank.delta(layer, args[0], self._rows, output)


def _layer_of(module: nn.Module) -> LoraLayer:
    if isinstance(module, NORMS):
        return _Norm(module)
    return _Convolution(module) if isinstance(module, _CONVOLUTIONS) else _Linear(module)


class _Module:
    """A library module, as terms see it."""

    channel_dim = -1

    def __init__(self, module: Any) -> None:
        self.module = module

    def multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        return dense_product(x, weight.flatten(1))

    def mix(self, weight: Tensor, hidden: Tensor) -> Tensor:
        return dense_product(hidden, weight.flatten(1))

    def base(self, x: Tensor, rows: range) -> Tensor:
        return self.multiply(self.numbers(rows), x)

    def numbers(self, rows: range) -> Tensor:
        numbers: Tensor = self.module.weight[rows.start : rows.stop]
        return numbers

    def total(self, sums: Tensor) -> Tensor:
        return sums


class _Linear(_Module):
    def numbers(self, rows: range) -> Tensor:
        if isinstance(self.module, KeptLinear):
            kept = self.module.kept
            return kept.rows(torch.arange(rows.start, rows.stop, device=kept.device))
        return super().numbers(rows)


class _Convolution(_Module):
    """With the module's own stride and padding."""

    channel_dim = 1

    def multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        module = self.module
        if weight.shape[1] * module.groups != x.shape[1]:  # as PEFT has it for grouped ones
            convolve = _CONVOLVE[weight.dim()]
            return convolve(x, weight, None, module.stride, module.padding, module.dilation)
        product: Tensor = module._conv_forward(x, weight, None)
        return product

    def mix(self, weight: Tensor, hidden: Tensor) -> Tensor:
        return _CONVOLVE[weight.dim()](hidden, weight)

    def base(self, x: Tensor, rows: range) -> Tensor:
        if self.module.groups != 1:
            return self.multiply(self.module.weight, x)[:, rows.start : rows.stop]
        return super().base(x, rows)


class _Norm(_Module):
    """x, normalised as the module does, times the difference of its weight."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.channel_dim = 1 if isinstance(module, nn.GroupNorm) else -1

    def multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        module = self.module
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x, module.num_groups, weight, None, module.eps)
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(x, module.normalized_shape, weight, None, module.eps)
        return F.rms_norm(x.float(), x.shape[-1:], None, module.eps).to(x.dtype) * weight
