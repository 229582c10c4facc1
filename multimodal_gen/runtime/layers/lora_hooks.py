"""LoRA for library modules, which are not passed the rows: by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffusers.models.normalization import RMSNorm as DiffusersRMSNorm
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.lora import Difference, LoraBank, LoraRows, LowRank, Term

_CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
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
            self._banks[module] = (_bank_for(module), module.register_forward_hook(self._hook))
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

    def _hook(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        # In place: the output is the module's own, and nothing else uses it yet.
        if self._rows is not None:
            self._banks[module][0].delta(args[0], self._rows, output)


def _bank_for(module: nn.Module) -> LoraBank:
    if isinstance(module, NORMS):
        channels = 1 if isinstance(module, nn.GroupNorm) else -1
        return LoraBank(partial(_normalised, module), channels)
    convolve = _CONVOLUTIONS.get(type(module))
    if convolve is None:
        return LoraBank()
    assert isinstance(module, nn.modules.conv._ConvNd)
    return LoraBank(partial(_convolved, module, convolve), channels=1)


def _convolved(
    module: nn.modules.conv._ConvNd, convolve: Callable[..., Tensor], term: Term, x: Tensor
) -> Tensor | None:
    """up(down(x)), or the product with a difference, with the module's own stride and padding."""
    if isinstance(term, LowRank):
        return convolve(module._conv_forward(x, term.down, None), term.up)
    return None if term.weight is None else module._conv_forward(x, term.weight, None)


def _normalised(module: nn.Module, term: Term, x: Tensor) -> Tensor | None:
    """x, normalised as the module does, times the difference of its weight."""
    assert isinstance(term, Difference)
    if term.weight is None:
        return None
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, term.weight, None, module.eps)
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, term.weight, None, module.eps)
    assert isinstance(module, _RMS_NORMS)
    return F.rms_norm(x.float(), x.shape[-1:], None, module.eps).to(x.dtype) * term.weight
