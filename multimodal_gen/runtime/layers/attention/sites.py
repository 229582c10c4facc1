"""Kinds of calls of an attention, and which of them a backend can serve."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch

HALVES = (torch.bfloat16, torch.float16)
LATER = 99
"""Behind the last major capability."""


class Site(NamedTuple):
    """Properties that calls of one kind have in common."""

    major: int | None
    """Major compute capability of an NVIDIA GPU; None: another device."""
    dtype: torch.dtype
    width: int
    """Width of a head."""
    lengths: bool
    """True if the numbers of valid keys differ from row to row."""


@dataclass(frozen=True)
class KernelLimits:
    """Calls on NVIDIA GPUs that a kernel can serve."""

    majors: range
    """Major compute capabilities that it is made for."""
    dtypes: tuple[torch.dtype, ...]
    widest: int
    """Widest head; the width must be a multiple of 8, of which 16 bytes are one load."""
    module: str | None = None
    """Module that has it, of a package that need not be installed."""
    extra: str = ""
    """Extra of this project that installs the package."""

    def admit(self, site: Site) -> bool:
        """Tell whether it serves calls of this kind."""
        return (
            site.major in self.majors
            and site.dtype in self.dtypes
            and site.width <= self.widest
            and site.width % 8 == 0
        )

    @property
    def installed(self) -> bool:
        return self.module is None or find_spec(self.module) is not None

    def missing(self, device: torch.device) -> str | None:
        """Name what it needs that is not here; None: nothing."""
        major = major_of(device)
        if major not in self.majors:
            least, last = self.majors[0], self.majors[-1]
            needed = f"{least}.x" if least == last else f"{least}.0 or later"
            found = f"device {device.type}" if major is None else f"{major}.x"
            return f"needs an NVIDIA GPU of compute capability {needed} (found: {found})"
        if not self.installed:
            return f"is not installed; pip install 'multimodal-gen[{self.extra}]'"
        return None


def major_of(device: torch.device) -> int | None:
    """Major compute capability of an NVIDIA GPU; None: another device."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return torch.cuda.get_device_capability(device)[0]
