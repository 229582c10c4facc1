"""The torch-free side of a model family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from multimodal_gen.configs.families.components import ComponentSpec
from multimodal_gen.configs.families.single_file import SingleFile
from multimodal_gen.configs.solvers import View, solvers_of
from multimodal_gen.messages.model_info import Defaults, Limits, PictureSize, TaskName

DenoiserKind = Literal["native", "adapter", "fallback"]
"""A model of this project; a module of diffusers; diffusers' whole pipeline."""


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """What is known of a family before any weight is loaded; its pipeline refers to it."""

    name: str
    title: str
    pipeline_classes: tuple[str, ...]
    """`_class_name` in model_index.json of the checkpoints that belong to it."""
    refused_classes: Mapping[str, str] = field(default_factory=dict)
    """Such as it can't run, and why."""
    components: Mapping[str, ComponentSpec]
    """What its pipeline loads from a checkpoint, in this order."""
    unused: tuple[tuple[str, str], ...] = ()
    """(library, class) of what checkpoints name besides and nothing loads."""
    tasks: tuple[TaskName, ...]
    parameters: tuple[str, ...]
    """The optional sampling parameters that mean something to it."""
    size_multiple: int
    defaults: Defaults
    """Of its best known checkpoint, where neither request nor checkpoint says otherwise."""
    limits: Limits
    frame_multiple: int = 1
    picture_size: PictureSize = "area"
    """What width and height are where a picture is given and they are not."""
    views: tuple[View, ...]
    """What its models may predict; solvers that suit this suit them."""
    own_solver: str | None = None
    """What its checkpoints are published with, if not the first of those: theirs alone if need be.
    """
    denoiser: DenoiserKind = "adapter"
    single_files: tuple[SingleFile, ...] = ()
    """Layouts, other than a folder, that its weights may come in: safetensors or GGUF."""
    ulysses: bool = False
    """Whether ranks can share a sequence; else they share the rows of a batch only."""

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Names of the solvers that its checkpoints allow, that of the published ones first."""
        own = (self.own_solver,) if self.own_solver else ()
        return tuple(dict.fromkeys((*own, *solvers_of(*self.views))))

    @property
    def file_styles(self) -> tuple[str, ...]:
        """Whose tensor names its single files may have."""
        return tuple(dict.fromkeys(layout.style for layout in self.single_files))

    @property
    def shares_rows(self) -> bool:
        """Whether its requests share batches, and ranks the rows of a batch."""
        return self.denoiser != "fallback"

    @property
    def module(self) -> str:
        """Where its pipeline is, under `runtime/pipelines`."""
        return "fallback.fallback" if self.denoiser == "fallback" else f"families.{self.name}"
