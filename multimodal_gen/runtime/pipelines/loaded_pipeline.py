"""How a pipeline comes from a checkpoint: which components it has, and what must fit."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.models.schedulers.registry import view_of
from multimodal_gen.runtime.models.vaes.vae import VAE


class LoadedPipeline(ABC):
    """The components of a checkpoint, and what a family says of them."""

    family: ClassVar[FamilyConfig]
    denoiser_name: ClassVar[str]
    vae_class: ClassVar[type[VAE]]
    widths: ClassVar[Mapping[str, tuple[str, ...]]]
    """What the denoiser's config must have as the sum of what other configs have."""

    def __init__(
        self,
        components: Mapping[str, Any],
        scheduler_config: Mapping[str, Any],
        defaults: Defaults,
        context: RankContext,
    ) -> None:
        self.components = dict(components)
        self.scheduler_config = dict(scheduler_config)
        self.defaults = defaults
        self.context = context

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, context: RankContext) -> Self:
        """Load every component. Raises InvalidCheckpoint."""
        cls.check(checkpoint)
        scheduler_config = cls.solver_config(checkpoint)
        defaults = checkpoint.defaults(cls.default_params(checkpoint))
        components = {
            name: cls.load_component(checkpoint, name, context)
            for name in cls.family.components
            if not cls.is_absent(checkpoint, name)
        }
        settings = cls.settings(checkpoint)
        with complaints("config.json of a component"):
            return cls(components, scheduler_config, defaults, context, **settings)

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Keywords of the family's constructor, from the options in the checkpoint's index."""
        return {}

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raises InvalidCheckpoint where the checkpoint is of the family but beyond it."""
        for name, component in cls.family.components.items():
            if not cls.is_absent(checkpoint, name):
                checkpoint.require(name, component.classes)
        for name, parts in cls.widths.items():
            if not any(cls.is_absent(checkpoint, part.partition(".")[0]) for part in parts):
                checkpoint.require_width(name, parts)

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        """Whether it is optional, and not there."""
        component = cls.family.components.get(name)
        optional = component is not None and component.optional
        return optional and name not in checkpoint.components

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """What the family sets where neither request nor checkpoint does."""
        return cls.family.defaults

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """What solvers are made from: data, as every request has a solver of its own."""
        config = checkpoint.scheduler_config()
        if (view := view_of(config)) not in cls.family.views:
            wanted = " or ".join(each.value for each in cls.family.views)
            raise InvalidCheckpoint(
                f"scheduler_config.json: {config['_class_name']} as configured there is for "
                f"{view.value} and does not fit {cls.family.title} ({wanted}), "
                f"which takes {', '.join(cls.family.schedulers)}"
            )
        return config

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        dtype = cls.component_dtype(checkpoint, name, context)
        loaded = checkpoint.load(name, dtype, context.device)
        return cls.vae_class.transform(loaded) if name == "vae" else loaded

    @classmethod
    def component_dtype(
        cls, checkpoint: Checkpoint, name: str, context: RankContext
    ) -> torch.dtype:
        """That of a component's weights, where the family does not leave it to the engine."""
        return context.dtype
