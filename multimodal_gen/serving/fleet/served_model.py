"""A model that is served, by any number of engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.checkpoints.lora.about import LoraAbout
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.checkpoints.upscaler.folder import UpscalerFolder
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.fleet.engine import Engine, EngineStatus, LoadedSoFar

_MOST_USABLE: tuple[EngineStatus, ...] = (
    *("ready", "draining", "loading", "restarting", "failed", "unloaded"),
)


@dataclass(eq=False, kw_only=True)
class ServedModel:
    """One model, whether or not it is loaded."""

    name: str
    is_named: bool = False
    """The operator gave the name; else it is the one that its engines report."""
    engines: list[Engine] = field(default_factory=list)
    info: ModelInfo | None = None
    """Known from the first time on that an engine has loaded it."""
    lora_dir: str | None = None
    control_dir: str | None = None
    upscaler_dir: str | None = None
    estimate: int = 0
    """Bytes of weights of one engine; 0 if only the engine can tell."""
    on_demand: bool = False
    """It is loaded when a request needs it, and requests wait for that."""
    last_used: float = 0.0
    """When it last had a new request, on a monotonic clock."""

    @property
    def status(self) -> EngineStatus:
        """Status of its most usable engine."""
        return min((engine.status for engine in self.engines), key=_MOST_USABLE.index)

    def loras(self) -> list[str]:
        """Names of the LoRAs that its requests may use. Accesses the disk."""
        return [] if self.lora_dir is None else LoraFolder(Path(self.lora_dir)).names()

    def controls(self) -> list[str]:
        """Names of the controls that its requests may use. Accesses the disk."""
        return [] if self.control_dir is None else ControlFolder(Path(self.control_dir)).names()

    def upscalers(self) -> list[str]:
        """Names of the models that may enlarge its results. Accesses the disk."""
        return [] if self.upscaler_dir is None else UpscalerFolder(Path(self.upscaler_dir)).names()

    def about_loras(self) -> dict[str, LoraAbout]:
        """Read what their files say of themselves, by name. Accesses the disk."""
        if self.lora_dir is None:
            return {}
        folder = LoraFolder(Path(self.lora_dir))
        return {name: folder.about(name) for name in folder.names()}

    def lora_titles(self, params: SamplingParams) -> dict[str, tuple[str, ...]]:
        """Names that the authors of a request's LoRAs gave them. Accesses the disk."""
        if self.lora_dir is None or not params.lora:
            return {}
        folder = LoraFolder(Path(self.lora_dir))
        return {choice.name: folder.about(choice.name).titles for choice in params.lora}

    @property
    def is_loaded(self) -> bool:
        """True if it is in memory, or about to be."""
        return self.status not in ("unloaded", "failed")

    @property
    def size(self) -> int:
        """Bytes of weights of its engines here; 0 if that is not known."""
        return sum(
            self.estimate or engine.total_bytes * engine.args.num_gpus
            for engine in self.engines
            if engine.args is not None
        )

    @property
    def ready_since(self) -> float:
        """Time at which its first engine became ready, on a monotonic clock."""
        return min(engine.ready_since for engine in self.engines)

    @property
    def used_at(self) -> float:
        """Time at which it was last used, or loaded to be used."""
        return max(self.last_used, self.ready_since)

    @property
    def loading(self) -> LoadedSoFar | None:
        """Progress of an engine that is being loaded."""
        return next((engine.loading for engine in self.engines if engine.loading), None)

    @property
    def failure(self) -> MultimodalGenError | None:
        """Why it can't be used, if all of its engines failed to start."""
        failures = [engine.failure for engine in self.engines]
        return failures[0] if failures and None not in failures else None

    @property
    def flying(self) -> int:
        """Number of requests in its engines."""
        return sum(len(engine.flying) for engine in self.engines)

    def load(self) -> None:
        """Start all of its engines."""
        for engine in self.engines:
            engine.load()

    def adopt(self, info: ModelInfo, bound: Callable[[ModelInfo], ModelInfo]) -> None:
        """Take over what an engine reports; `bound` adds the operator's limits."""
        self.name = self.name if self.is_named else info.name
        self.info = bound(msgspec.structs.replace(info, name=self.name))
