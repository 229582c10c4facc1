"""How a family's weights in one file are recognised, and what gives whatever is not in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

KeyStyle = Literal["original", "diffusers"]
"""Whose names the denoiser's tensors have: those of the model's authors, which ComfyUI and most
GGUF files keep, or diffusers'."""

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor in a file, by name."""

Marks = Mapping[str, tuple[int | None, ...]]
"""Tensors that a file must have, and how their shapes begin; None is any size."""


@dataclass(frozen=True)
class BaseModel:
    """A published checkpoint in diffusers layout: configs, tokenizers, encoders, VAE."""

    repository: str
    """Its name on the hub."""
    has: Marks = field(default_factory=dict)
    """Of the files that it fits."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """One way in which a family's denoiser, alone or with more, lies in a file."""

    denoiser: str
    """Its class in diffusers."""
    style: KeyStyle
    keys: tuple[str, ...]
    """Names, without a prefix, that together mark it."""
    has: Marks = field(default_factory=dict)
    """What sets it apart from other layouts with those names."""
    without: tuple[str, ...] = ()
    """Names that another model has which else looks the same."""
    ignored: tuple[str, ...] = ()
    """Names of what no model has a use for."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Prefix of further components that full checkpoints hold -> component."""
    bases: tuple[BaseModel, ...]
    """Tried in order; the last one fits all."""

    def prefix(self, shapes: Shapes) -> str | None:
        """What stands before the denoiser's names in a file; None where it is not of this kind."""
        for prefix in _PREFIXES:
            if all(prefix + key in shapes for key in self.keys):
                barred = any(prefix + key in shapes for key in self.without)
                return prefix if not barred and _marked(shapes, prefix, self.has) else None
        return None

    def missing(self, names: Collection[str]) -> tuple[str, ...]:
        """Of the names that mark it, those that a file lacks, by the prefix that fits best."""
        return min((self._lacking(names, prefix) for prefix in _PREFIXES), key=len)

    def _lacking(self, names: Collection[str], prefix: str) -> tuple[str, ...]:
        return tuple(key for key in self.keys if prefix + key not in names)

    def base(self, shapes: Shapes, prefix: str) -> BaseModel:
        """The published checkpoint that a file of this kind most probably goes with."""
        fitting = (base for base in self.bases if _marked(shapes, prefix, base.has))
        return next(fitting, self.bases[-1])


def of_another(
    layouts: Iterable[SingleFile], repository: str, **has: Marks
) -> tuple[SingleFile, ...]:
    """The same layouts for a model of the same denoiser: where it is published, and what sets its
    files apart, by style."""
    bases = (BaseModel(repository),)
    return tuple(replace(each, bases=bases, has=has.get(each.style, each.has)) for each in layouts)


def _marked(shapes: Shapes, prefix: str, marks: Marks) -> bool:
    return all(
        prefix + name in shapes
        and len(shapes[prefix + name]) >= len(begin)
        and all(
            wanted is None or wanted == size
            for wanted, size in zip(begin, shapes[prefix + name], strict=False)
        )
        for name, begin in marks.items()
    )
