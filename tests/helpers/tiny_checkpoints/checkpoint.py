"""How a tiny checkpoint is made, and what its picture depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .schedulers import Config

GUIDED = ("prompt", "seed", "steps", "guidance", "negative prompt")


@dataclass(frozen=True)
class TinyCheckpoint:
    """A pipeline of diffusers with few and narrow layers."""

    pipeline: Callable[..., Any]
    """Makes it of a scheduler and `heads`, how many the denoiser has."""
    scheduler: Config
    """As the real checkpoint ships it."""
    inputs: tuple[str, ...] = GUIDED
    """What changes its picture noticeably, of the changes that `test_tiny_checkpoints` knows."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """What a call of it needs besides prompt, size and steps."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Of its parameters, besides those of all checkpoints: see `weights.GAINS`."""
