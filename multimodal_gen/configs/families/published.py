"""Published checkpoints of the families: licenses, sizes, and what was tried of their layouts.

`published.json` has the facts. `python tests/helpers/published_facts.py` writes those that follow
from the checkpoints' configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults

PUBLISHED_FACTS = Path(__file__).with_suffix(".json")
MILLION = 1_000_000
Form = Literal["folder", "original", "diffusers", "whole file", "GGUF", "quantized"]
"""Forms of a checkpoint: a folder in diffusers' layout; a single file with the denoiser under its
authors' names, or under diffusers'; one with text encoders and VAE, too; GGUF; a file whose
weights are quantized."""


class WeightCount(msgspec.Struct, frozen=True, array_like=True):
    """Weights of a component, in millions."""

    all: int
    """Of the layers that are loaded."""
    quantized: int = 0
    """Of the layers that `--quantization` applies to."""


class PublishedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint on the hub. What is None is not known here: its model card says it."""

    name: str
    """Name on the hub."""
    license: str | None = None
    """As its model card names it."""
    pipeline: str | None = None
    """Its class in diffusers, for a family that runs the library's own pipelines."""
    title: str | None = None
    """Name in lists, for such a family."""
    steps: int | None = None
    """Default number of steps, if not the family's."""
    size: tuple[int, int] | None = None
    """Default width and height in pixels, if not the family's."""
    frames: int | None = None
    """Default number of frames, if not the family's."""
    weights: Mapping[str, WeightCount] = {}
    """By component."""
    tried: tuple[Form, ...] = ()
    """Forms in which a small checkpoint of the same layout is compared with diffusers."""

    @property
    def short_name(self) -> str:
        """Name without the owner."""
        return self.name.rpartition("/")[2]


_BY_FAMILY = msgspec.json.decode(
    PUBLISHED_FACTS.read_bytes(), type=dict[str, tuple[PublishedModel, ...]]
)


def defaults_of(family: FamilyConfig, model: PublishedModel) -> Defaults:
    """The family's defaults with the size and steps of a published checkpoint."""
    width, height = model.size or (family.defaults.width, family.defaults.height)
    return msgspec.structs.replace(
        family.defaults,
        width=width,
        height=height,
        num_frames=model.frames or family.defaults.num_frames,
        num_inference_steps=model.steps or family.defaults.num_inference_steps,
    )


def published_models(family: FamilyConfig) -> tuple[PublishedModel, ...]:
    """Published checkpoints of a family, the best known first."""
    return _BY_FAMILY.get(family.name, ())
