"""The parts of a weight file: the tensors that belong to one component each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from multimodal_gen.checkpoints.component_kinds import kind_of

Classes = Mapping[str, tuple[str, ...]]
"""Classes of each component of a checkpoint or family, by name."""

_PREFIX = re.compile(
    r"(?:vae|first_stage_model)\."
    r"|text_encoders\.\w+\.(?:transformer\.)?"
    r"|(?:cond_stage_model|conditioner\.embedders\.\d+)\.(?:transformer\.|model\.)?"
    r"|(?:text|image)_encoder(?:_\d)?\."
)
"""What files of several components, of Stability AI or ComfyUI, have before a component's own
names."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_SHOWN = 32
_NAMED = {
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "conditioner.embedders.0": "text_encoder",
    "conditioner.embedders.1": "text_encoder_2",
}
"""Which of two encoders of one class it is, by a part of the prefix."""


@dataclass(frozen=True)
class FilePart:
    """Tensors of a file that are one component's."""

    title: str
    component: str
    """Its usual name in a checkpoint."""
    classes: tuple[str, ...]
    """Classes of diffusers or transformers that can hold it."""
    prefix: str
    names: Mapping[str, str]
    """Name in the file, by the component's own name."""
    converted: bool = False
    """True if the own names are known to be those of its class."""

    @property
    def is_denoiser(self) -> bool:
        return self.component in ("transformer", "unet")

    def place(self, components: Classes) -> str | None:
        """The component that it is; None if there is none, or if several could be it."""
        fitting = [name for name, own in components.items() if set(own) & set(self.classes)]
        if len(fitting) == 1:
            return fitting[0]
        told = (name for mark, name in _NAMED.items() if mark in self.prefix)
        named = next(told, self.prefix.removesuffix("."))
        return named if named in fitting else None


def split_parts(names: Iterable[str]) -> tuple[list[FilePart], list[str]]:
    """Split off the parts with a prefix of their own; returns them and all other names."""
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    others = []
    for name in names:
        match = _PREFIX.match(name)
        if match is None:
            others.append(name)
        else:
            groups[match[0]][name[match.end() :]] = name
    parts = []
    for prefix, group in groups.items():
        part = part_of(group, prefix)
        if part is None:
            others += group.values()
        else:
            parts.append(part)
    return parts, others


def part_of(names: Mapping[str, str], prefix: str = "") -> FilePart | None:
    """The component that these tensors are; None if it is not known."""
    kind = kind_of([*names])
    if kind is None:
        return None
    return FilePart(kind.title, kind.component, kind.classes, prefix, names)


def listed(names: Iterable[str]) -> str:
    """Names of tensors; those of repeated layers are shown once."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_NUMBER.sub("#", name)].append(name)
    shown = [
        first if not others else f"{first} and {len(others)} like it"
        for first, *others in islice(groups.values(), _SHOWN)
    ]
    left = sum(map(len, islice(groups.values(), _SHOWN, None)))
    return ", ".join(shown) + (f" and {left} more" if left else "")
