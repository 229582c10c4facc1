"""Description of a checkpoint on disk, derived from headers and JSON alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from multimodal_gen.checkpoints.tensor_info import TensorInfo
from multimodal_gen.configs.families import FamilyConfig

_PLAIN = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of a checkpoint."""

    name: str
    class_name: str
    files: tuple[Path, ...] = ()
    variant: str | None = None
    parameters: int = 0
    size: int = 0
    """Total bytes of its tensors."""
    dtypes: Mapping[str, int] = field(default_factory=dict)
    """Number of parameters per type, largest first."""
    problem: str | None = None
    """Reason that it can't be loaded, if any."""
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False)
    """Its tensors, by its own names for them."""

    @classmethod
    def of(
        cls,
        name: str,
        class_name: str,
        tensors: Mapping[str, TensorInfo],
        files: tuple[Path, ...],
        variant: str | None = None,
    ) -> Component:
        dtypes: Counter[str] = Counter()
        for info in tensors.values():
            dtypes[info.dtype] += info.parameters
        return cls(
            name=name,
            class_name=class_name,
            files=files,
            variant=variant,
            parameters=dtypes.total(),
            size=sum(info.size for info in tensors.values()),
            tensors=tensors,
            dtypes=dict(dtypes.most_common()),
        )


@dataclass(frozen=True, kw_only=True)
class Description:
    """Kind of a checkpoint, its components, and what is missing."""

    path: Path
    layout: str
    pipeline_class: str | None
    """None for a single file: the base checkpoint determines it."""
    family: FamilyConfig | None
    components: tuple[Component, ...]
    alike: tuple[FamilyConfig, ...] = ()
    """Other families that a single file may belong to; its base checkpoint decides."""
    fits: tuple[str, ...] = ()
    """Components that a file of one component can be, each as `family.component`."""
    base: str | None = None
    """Source of the components that a single file lacks: a folder or hub name."""
    scheduler_settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of the scheduler that a single file states."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What a server would do differently from the checkpoint's settings."""

    @property
    def complaints(self) -> tuple[str, ...]:
        """All problems that prevent loading."""
        return (*self.problems, *(each.problem for each in self.components if each.problem))

    @property
    def quantisation(self) -> tuple[str, ...]:
        """Tensor types other than plain floating point, as named in the files."""
        types = (dtype for each in self.components for dtype in each.dtypes)
        return tuple(dict.fromkeys(dtype for dtype in types if dtype not in _PLAIN))
