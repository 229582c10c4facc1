"""One kind of call, with each backend that can serve it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

import torch

from multimodal_gen.benchmarks.device.instruments import Instruments
from multimodal_gen.configs.attention import ATTENTION_BACKENDS
from multimodal_gen.runtime.layers.attention.attention import (
    backend,
    installed,
    limits_of,
    serves,
)
from multimodal_gen.runtime.layers.attention.sites import HALVES, Site, major_of

_WIDTHS = (40, 64, 72, 96, 128, 160, 256)
_SHORTER = 0.9
"""Valid keys of the second row, where lengths differ, of the first row's."""


@dataclass(frozen=True)
class Timed:
    site: Site
    seconds: dict[str, float]
    """Median of each backend, fastest first."""

    @property
    def fastest(self) -> list[str]:
        """The fastest backend, and the fastest that is always installed."""
        always = (name for name in self.seconds if _always_installed(name))
        return list(dict.fromkeys((next(iter(self.seconds)), next(always))))


def sites(device: torch.device) -> Iterator[Site]:
    """Kinds of calls to measure on a device."""
    for dtype, lengths, width in product((*HALVES, torch.float32), (False, True), _WIDTHS):
        yield Site(major_of(device), dtype, width, lengths)


def timed(site: Site, device: torch.device, size: Sequence[int], repeats: int) -> Timed:
    """Measure the backends in turn, for two rows of (tokens, heads)."""
    tokens, heads = size
    qkv = torch.randn(2, tokens, 3, heads, site.width, device=device).to(site.dtype)
    q, k, v = qkv.unbind(2)
    lengths = torch.tensor([tokens, int(tokens * _SHORTER)], dtype=torch.int32, device=device)
    given = lengths if site.lengths else None
    names = [name for name in ATTENTION_BACKENDS if serves(name, site) and installed(name)]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    instruments = Instruments(device)
    with torch.inference_mode():
        for turn, name in product(range(repeats + 1), names):
            attend = partial(backend(name), q, k, v, given)
            took = instruments.seconds(attend)[1]
            if turn:  # the first one warms up
                seconds[name].append(took)
    medians = {name: median(each) for name, each in seconds.items()}
    return Timed(site, dict(sorted(medians.items(), key=lambda item: item[1])))


def _always_installed(name: str) -> bool:
    limits = limits_of(name)
    return limits is None or limits.module is None
