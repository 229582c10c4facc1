"""Configuration of a model family, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from multimodal_gen.configs.families.components import ComponentSpec
from multimodal_gen.configs.families.single_file import SingleFile
from multimodal_gen.configs.solvers import SCHEDULE_PARAMETERS, View, noise_schedules_of, solvers_of
from multimodal_gen.configs.step_cache import UNCALIBRATED, StepCaches
from multimodal_gen.messages.model_info import Defaults, Limits, PictureSize, TaskName

DenoiserKind = Literal["native", "adapter", "fallback"]
"""native: a model of this project; adapter: a diffusers module; fallback: a diffusers pipeline."""


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """Facts about a family that are known before any weight is loaded."""

    name: str
    title: str
    pipeline_classes: tuple[str, ...]
    """`_class_name` values in model_index.json of the family's checkpoints."""
    refused_classes: Mapping[str, str] = field(default_factory=dict)
    """Class names that the family can't run, and the reasons."""
    components: Mapping[str, ComponentSpec]
    """Components that its pipeline loads from a checkpoint, in this order."""
    unused: tuple[tuple[str, str], ...] = ()
    """(library, class) of other components in checkpoints, which are not loaded."""
    tasks: tuple[TaskName, ...]
    parameters: tuple[str, ...]
    """Optional sampling parameters that the family supports."""
    size_multiple: int
    defaults: Defaults
    """Defaults of its best known checkpoint, for values that request and checkpoint don't set."""
    limits: Limits
    frame_multiple: int = 1
    picture_size: PictureSize = "area"
    """How width and height follow from the input image if they are not given."""
    last_image_alone: bool = False
    """A last frame needs no first one."""
    views: tuple[View, ...]
    """Prediction types of its models, which determine the suitable solvers."""
    other_views: tuple[View, ...] = ()
    """Prediction types of further checkpoints, not of the published ones."""
    own_solver: str | None = None
    """Solver that its checkpoints are published with, if not the first for `views`; it may suit
    these checkpoints only."""
    step_caches: StepCaches = field(default_factory=lambda: UNCALIBRATED)
    """Rules of extrapolation, by `quality`; empty where the library has the loop."""
    denoiser: DenoiserKind = "adapter"
    in_one_call: bool = False
    """True if a request is one call of the library, which may use any component at any time."""
    single_files: tuple[SingleFile, ...] = ()
    """Supported single-file layouts of its weights: safetensors or GGUF."""
    ulysses: bool = False
    """Whether ranks can share a sequence; otherwise they share only the rows of a batch."""

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Names of the solvers that its checkpoints allow, the published one first."""
        own = (self.own_solver,) if self.own_solver else ()
        return tuple(dict.fromkeys((*own, *solvers_of(*self.views))))

    @property
    def schedule_parameters(self) -> tuple[str, ...]:
        """Optional sampling parameters that follow from what its models predict."""
        known = (name for view in self.views for name in SCHEDULE_PARAMETERS[view])
        return tuple(dict.fromkeys(known))

    @property
    def noise_schedules(self) -> tuple[str, ...]:
        """Names of the noise schedules that its solvers support, the checkpoint's own first."""
        return noise_schedules_of(self.schedulers, self.views)

    @property
    def file_styles(self) -> tuple[str, ...]:
        """Styles of tensor names in its single files."""
        return tuple(dict.fromkeys(layout.style for layout in self.single_files))

    @property
    def shares_rows(self) -> bool:
        """True if its requests share batches, and ranks share the rows of a batch."""
        return self.denoiser != "fallback"

    @property
    def module(self) -> str:
        """Module of its pipeline, under `runtime/pipelines`."""
        folder = self.name if self.denoiser == "fallback" else "families"
        return f"{folder}.{self.name}"
