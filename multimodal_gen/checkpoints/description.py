"""What a checkpoint on disk is, told from headers and JSON alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
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
    """Bytes of its tensors."""
    dtypes: Mapping[str, int] = field(default_factory=dict)
    """Parameters of each type, most first."""
    problem: str | None = None
    """Why it can't be loaded."""

    @classmethod
    def of(
        cls,
        name: str,
        class_name: str,
        tensors: Iterable[TensorInfo],
        files: tuple[Path, ...],
        variant: str | None = None,
    ) -> Component:
        tensors = list(tensors)
        dtypes: Counter[str] = Counter()
        for info in tensors:
            dtypes[info.dtype] += info.parameters
        return cls(
            name=name,
            class_name=class_name,
            files=files,
            variant=variant,
            parameters=dtypes.total(),
            size=sum(info.size for info in tensors),
            dtypes=dict(dtypes.most_common()),
        )


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint is, what it holds and what is missing."""

    path: Path
    layout: str
    pipeline_class: str | None
    """None for a single file: its base says which."""
    family: FamilyConfig | None
    components: tuple[Component, ...]
    alike: tuple[FamilyConfig, ...] = ()
    """Families that a single file may also be of, as its base says."""
    base: str | None = None
    """What else has to give the components that a single file does not hold: folder or hub name."""
    problems: tuple[str, ...] = ()

    @property
    def complaints(self) -> tuple[str, ...]:
        """Everything that stands in the way of loading it."""
        return (*self.problems, *(each.problem for each in self.components if each.problem))

    @property
    def quantisation(self) -> tuple[str, ...]:
        """The types of its tensors other than plain floating point, as its files call them."""
        types = (dtype for each in self.components for dtype in each.dtypes)
        return tuple(dict.fromkeys(dtype for dtype in types if dtype not in _PLAIN))
