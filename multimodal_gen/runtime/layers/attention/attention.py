"""Selection of attention backends, and what they share."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor

from multimodal_gen.configs.attention import ATTENTION_BACKENDS
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.distributed.local_attention import Attention, PartialOutput
from multimodal_gen.runtime.layers.attention.sites import HALVES, KernelLimits, Site, major_of
from multimodal_gen.runtime.layers.attention.table import TABLE

_CPU = torch.device("cpu")
_ANYWHERE = "sdpa"
_DTYPES = (torch.float32, *HALVES)
_WIDTHS = range(8, 513, 8)


def select_attention(name: str = "auto", device: torch.device = _CPU) -> Attention:
    """Return the backend called `name`: `attention` of a module in `backends/`.

    `auto` follows the table. Calls that a named backend can't serve, as of another dtype, go where
    `auto` would send them. Raises InvalidRequest for a backend that serves no call on `device`.
    """
    if name == "auto":
        return _Chosen(device) if device.type == "cuda" else backend(_ANYWHERE)
    if name not in ATTENTION_BACKENDS:
        allowed = f"must be one of auto, {', '.join(ATTENTION_BACKENDS)}"
        raise InvalidRequest("attention_backend", name, allowed)
    limits = limits_of(name)
    if limits is None:
        return backend(name)
    if (missing := limits.missing(device)) is not None:
        raise InvalidRequest("attention_backend", name, missing)
    return _Chosen(device, name)


def backend(name: str) -> Attention:
    """The attention of one backend."""
    attention: Attention = _module(name).attention
    return attention


def limits_of(name: str) -> KernelLimits | None:
    """Return the limits of a backend; None means that it serves everything."""
    limits: KernelLimits | None = getattr(_module(name), "LIMITS", None)
    return limits


def installed(name: str) -> bool:
    """Tell whether the packages are there that a backend needs."""
    limits = limits_of(name)
    return limits is None or limits.installed


def serves(name: str, site: Site) -> bool:
    """Tell whether a backend can serve calls of this kind."""
    limits = limits_of(name)
    return limits is None or limits.admit(site)


def chosen(site: Site, preferred: str | None = None) -> str:
    """Name of the backend for calls of this kind: the first one that can serve them."""
    listed = [choice.backend for choice in TABLE if choice.covers(site)]
    names = [*([preferred] if preferred else []), *listed, _ANYWHERE]
    return next(name for name in names if serves(name, site) and installed(name))


def key_mask(lengths: Tensor, keys: int) -> Tensor:
    """True where a key is valid, [B, 1, 1, keys]."""
    return (torch.arange(keys, device=lengths.device) < lengths[:, None])[:, None, None]


def without_empty_rows(partial: PartialOutput, lengths: Tensor | None) -> PartialOutput:
    """Set what `PartialOutput` says for rows without a valid key: kernels differ there."""
    if lengths is None:
        return partial
    empty = (lengths == 0)[:, None, None]
    return PartialOutput(
        partial.out.masked_fill(empty.unsqueeze(-1), 0),
        partial.log_sum_exp.masked_fill(empty, float("-inf")),
    )


class Kernel(Protocol):
    """Output [B, S_q, H, D] and, if `scores`, log-sum-exp [B, S_q, H] of one kernel."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, scores: bool
    ) -> tuple[Tensor, Tensor]: ...


class KernelAttention:
    """Attention by a kernel that is called by its name."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._kernel(q, k, v, lengths, scores=False)[0]

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        found = PartialOutput(*self._kernel(q, k, v, lengths, scores=True))
        return without_empty_rows(found, lengths)


class _Chosen:
    """Knows a backend for each dtype and width of heads, with lengths and without."""

    def __init__(self, device: torch.device, preferred: str | None = None) -> None:
        major = major_of(device)
        sites = [Site(major, *kind) for kind in product(_DTYPES, _WIDTHS, (False, True))]
        self._found = {site[1:]: backend(chosen(site, preferred)) for site in sites}
        self._other = backend(_ANYWHERE)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._for(q, lengths)(q, k, v, lengths)

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        return self._for(q, lengths).partial(q, k, v, lengths)

    def _for(self, q: Tensor, lengths: Tensor | None) -> Attention:
        return self._found.get((q.dtype, q.shape[-1], lengths is not None), self._other)


@cache
def _module(name: str) -> Any:
    return import_module(f"multimodal_gen.runtime.layers.attention.backends.{name}")
