"""The table of diffusers' pipelines that run as a fallback, and of those that don't.

`library_pipelines.json` is written by runtime/pipelines/fallback/write_table.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from multimodal_gen.messages.model_info import TaskName

TABLE = Path(__file__).with_suffix(".json")


class LibraryPipeline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pipeline class of diffusers."""

    tasks: tuple[TaskName, ...]
    inputs: Mapping[str, str] = {}
    """Input pictures by name (`image_2` is another picture), with their names in its call."""
    control: str | None = None
    """Name in its call of the picture that steers the ControlNet or adapter that it has."""
    images: int = 1
    """Maximum number of pictures that it takes."""
    size_multiple: int = 1
    """Of width and height, beyond that of the VAE and the denoiser's patches."""
    size: tuple[int, int] | None = None
    """Default width and height. None: from the call's signature, else the denoiser's training
    size."""
    num_frames: int | None = None
    """Default number of frames that neither the call nor the denoiser's config has."""
    fps: int | None = None
    """Default frame rate of a video; None for a picture."""


class LibraryTable(msgspec.Struct, frozen=True, kw_only=True):
    """Pipelines of one version of diffusers."""

    diffusers: str
    pipelines: Mapping[str, LibraryPipeline]
    """By `_class_name`."""
    refused: Mapping[str, str]
    """Classes that can't be run, with the reasons."""
    components: Mapping[str, tuple[str, ...]]
    """Classes that these pipelines may load, as `library.class`, by their kind."""


LIBRARY_TABLE = msgspec.json.decode(TABLE.read_bytes(), type=LibraryTable)
