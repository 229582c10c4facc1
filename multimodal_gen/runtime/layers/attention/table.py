"""Backends that `auto` chooses for attention on NVIDIA GPUs: the first one listed that is installed
and can serve a call; torch's own choice (`sdpa`) serves the rest, and all calls on other devices.

`python -m multimodal_gen.benchmarks.attention` measures the backends on the GPU that it finds, and
prints these rows for it. The rows below are what the kernels' makers and public benchmarks report:
FlashAttention-3 and cuDNN are made for Hopper's asynchronous tensor cores, cuDNN for Blackwell's,
and flash is the fastest of the others. A cuDNN kernel needs a mask for rows of unlike length; the
others read the lengths on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from multimodal_gen.runtime.layers.attention.sites import HALVES, Site

_BFLOAT16 = (torch.bfloat16,)


class TableRow(NamedTuple):
    """A backend for some kinds of calls."""

    majors: tuple[int, ...]
    """Major compute capabilities."""
    dtypes: tuple[torch.dtype, ...]
    widths: tuple[int, int]
    """Narrowest and widest heads."""
    lengths: bool
    """True if the numbers of valid keys differ from row to row."""
    backend: str

    def covers(self, site: Site) -> bool:
        return (
            site.major in self.majors
            and site.dtype in self.dtypes
            and self.widths[0] <= site.width <= self.widths[1]
            and site.lengths == self.lengths
        )


TABLE = (
    # Hopper
    TableRow((9,), _BFLOAT16, (8, 256), False, "fa3"),
    TableRow((9,), _BFLOAT16, (8, 256), True, "fa3"),
    TableRow((9,), HALVES, (64, 128), False, "cudnn"),
    TableRow((9,), HALVES, (8, 256), False, "flash"),
    TableRow((9,), HALVES, (8, 256), True, "flash"),
    # Blackwell of data centres
    TableRow((10,), HALVES, (64, 128), False, "cudnn"),
    TableRow((10,), HALVES, (8, 256), False, "flash"),
    TableRow((10,), HALVES, (8, 256), True, "flash"),
    # Ampere, Ada, and Blackwell of workstations
    TableRow((8, 12), HALVES, (8, 256), False, "flash"),
    TableRow((8, 12), HALVES, (8, 256), True, "flash"),
    # Float32 everywhere, and Turing
    TableRow((7, 8, 9, 10, 12), (torch.float32,), (8, 256), False, "efficient"),
    TableRow((7, 8, 9, 10, 12), (torch.float32,), (8, 256), True, "efficient"),
    TableRow((7,), (torch.float16,), (8, 256), False, "efficient"),
    TableRow((7,), (torch.float16,), (8, 256), True, "efficient"),
)
