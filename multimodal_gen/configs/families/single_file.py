"""Describes how to recognise a family's single files, and the bases of missing components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

KeyStyle = Literal["original", "diffusers"]
"""Naming of the denoiser's tensors: by the model's authors (also used by ComfyUI and most GGUF
files), or by diffusers."""

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor in a file, by name."""

Spread = Callable[[str], float | None]
"""Standard deviation of a tensor in a file, by name; None if it is not known."""

Marks = Mapping[str, tuple[int | None, ...]]
"""Tensors that a file must have, with the start of their shapes; None is any size."""


@dataclass(frozen=True)
class BaseModel:
    """A published checkpoint in diffusers layout: configs, tokenizers, encoders, VAE."""

    repository: str
    """Name on the hub."""
    has: Marks = field(default_factory=dict)
    """Marks of the files that it matches."""
    narrow: Mapping[str, float] = field(default_factory=dict)
    """Denoiser's tensors with the largest standard deviation that they have in files that it
    matches."""
    marker: str | None = None
    """Name of a tensor that files have beside the denoiser's."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """A layout of a family's denoiser, alone or with other components, in a single file."""

    denoiser: str
    """Class of the denoiser in diffusers."""
    style: KeyStyle
    keys: tuple[str, ...]
    """Names, without a prefix, that together identify it."""
    has: Marks = field(default_factory=dict)
    """Distinguishes it from other layouts with those names."""
    without: tuple[str, ...] = ()
    """Names in an otherwise identical layout of another model."""
    ignored: tuple[str, ...] = ()
    """Names that no model uses; of those that end in a dot, all that begin with them."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Names in variants of it that can't be read, and what to say of them."""
    bases: tuple[BaseModel, ...]
    """Bases in the order they are tried; the last one fits all files."""

    def prefix(self, shapes: Shapes) -> str | None:
        """Prefix of the denoiser's names in a file; None if it is of another kind."""
        for prefix in _PREFIXES:
            if all(prefix + key in shapes for key in self.keys):
                barred = any(prefix + key in shapes for key in self.without)
                return prefix if not barred and _marked(shapes, prefix, self.has) else None
        return None

    def missing(self, names: Collection[str]) -> tuple[str, ...]:
        """Identifying names that a file lacks, with the best-matching prefix."""
        return min((self._lacking(names, prefix) for prefix in _PREFIXES), key=len)

    def _lacking(self, names: Collection[str], prefix: str) -> tuple[str, ...]:
        return tuple(key for key in self.keys if prefix + key not in names)

    def base(self, shapes: Shapes, prefix: str, spread: Spread) -> BaseModel:
        """Most probable published checkpoint for a file of this kind."""
        fitting = (
            base
            for base in self.bases
            if (base.marker is None or base.marker in shapes)
            and _marked(shapes, prefix, base.has)
            and _narrow(prefix, base.narrow, spread)
        )
        return next(fitting, self.bases[-1])


def of_another(
    layouts: Iterable[SingleFile], repository: str, **has: Marks
) -> tuple[SingleFile, ...]:
    """The same layouts for another model with the same denoiser, published in `repository`; `has`
    by style distinguishes its files."""
    bases = (BaseModel(repository),)
    return tuple(replace(each, bases=bases, has=has.get(each.style, each.has)) for each in layouts)


def _narrow(prefix: str, narrow: Mapping[str, float], spread: Spread) -> bool:
    found = [(spread(prefix + name), most) for name, most in narrow.items()]
    return all(width is not None and width <= most for width, most in found)


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
