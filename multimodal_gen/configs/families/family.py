"""The torch-free side of a model family."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.messages.model_info import Defaults, Limits, PictureSize, Task


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """What is known of a family before any weight is loaded; its pipeline refers to it."""

    name: str
    """Also the name of its module in `runtime/pipelines`."""
    title: str
    pipeline_classes: tuple[str, ...]
    """`_class_name` in model_index.json of the checkpoints that belong to it."""
    tasks: tuple[Task, ...]
    parameters: tuple[str, ...]
    """The optional sampling parameters that mean something to it."""
    size_multiple: int
    defaults: Defaults
    """Of its best known checkpoint, where neither request nor checkpoint says otherwise."""
    limits: Limits
    frame_multiple: int = 1
    picture_size: PictureSize = "area"
    """What width and height are where a picture is given and they are not."""
    schedulers: tuple[str, ...]
    """Short names of the solvers that fit its view of diffusion."""
    ulysses: bool = False
    """Whether ranks can share a sequence; else they share the rows of a batch only."""
