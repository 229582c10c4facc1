"""Recognises a single weight file by its tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from multimodal_gen.checkpoints.component_kinds import KINDS
from multimodal_gen.checkpoints.file_parts import Classes, FilePart, part_of, split_parts
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.prediction import NOTES, scheduler_settings, spread
from multimodal_gen.checkpoints.quantized.found_layers import understood
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.errors import InvalidCheckpoint

_OTHERS = (
    (
        ("lora_up", "lora_down", "lora_A", "lora_B", "hada_w1", "lokr_w1"),
        "a LoRA: pass it as a LoRA, by name",
    ),
    (("v.patch_embd",), "the vision tower of a text encoder: keep it in the encoder's folder"),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet"),
    (
        ("resblocks.", "text_model.", "encoder.block.", "blk.0.attn_q", "token_embd"),
        "a text encoder",
    ),
    (("decoder.conv_in.", "decoder.up.", "decoder.middle."), "a VAE"),
    (("vision_model.",), "an image encoder"),
)
_SHOWN = 4


@dataclass(frozen=True)
class Recognised:
    """A file whose layout is known."""

    header: Header
    family: FamilyConfig
    layout: SingleFile
    prefix: str
    """Prefix of the denoiser's tensor names."""
    alike: tuple[FamilyConfig, ...] = ()
    """Other families with the same tensor names; a base checkpoint distinguishes them."""

    @property
    def base(self) -> BaseModel:
        """Published checkpoint that probably has the components missing from the file."""
        return self.layout.base(_shapes(self.header), self.prefix, partial(spread, self.header))

    @property
    def scheduler_settings(self) -> dict[str, object]:
        """Settings of the scheduler that the file states, whatever its base does."""
        return scheduler_settings(self.header)

    @property
    def parts(self) -> list[FilePart]:
        """The denoiser, then the file's other components."""
        return [self.denoiser, *split_parts(self.header.tensors)[0]]

    @property
    def denoiser(self) -> FilePart:
        """The file's transformer or UNet."""
        names = {
            name.removeprefix(self.prefix): name
            for name in split_parts(self.header.tensors)[1]
            if name.startswith(self.prefix)
        }
        kind = "UNet" if self.layout.denoiser.startswith("UNet") else "transformer"
        return FilePart(
            title=f"the {kind} of {self.family.title}",
            component=kind.lower(),
            classes=(self.layout.denoiser,),
            prefix=self.prefix,
            names={own: name for own, name in names.items() if not self._is_unused(own)},
            converted=self.layout.style == "diffusers",
        )

    @property
    def ignored(self) -> list[str]:
        """Tensors that are part of no component."""
        used = {name for part in self.parts for name in part.names.values()}
        used.update(prefix + note for note in NOTES for prefix in ("", self.prefix))
        return [name for name in self.header.tensors if name not in used]

    def _is_unused(self, own: str) -> bool:
        unused = (*self.layout.ignored, *NOTES)
        parts = tuple(name for name in unused if name.endswith("."))
        return own in unused or own.startswith(parts)


def held_parts(header: Header) -> list[FilePart]:
    """Components that a file holds. Raises InvalidCheckpoint if there is none that is known."""
    try:
        return _recognised(header).parts
    except InvalidCheckpoint:
        if parts := _without_denoiser(header):
            return parts
        raise


def _without_denoiser(header: Header) -> list[FilePart]:
    """Components of a file that has no known denoiser."""
    parts, _ = split_parts(header.tensors)
    whole = None if parts else part_of({name: name for name in header.tensors})
    return [*parts, *([whole] if whole else [])]


def component_part(name: str, path: Path, classes: Classes) -> tuple[Header, FilePart]:
    """Find component `name` of a checkpoint whose components have these classes in a file. Raises
    InvalidCheckpoint that says what the file holds."""
    header = understood(read_header(path))
    if not any(map(_is_known, classes[name])):  # Only the names that it has in a folder are.
        names = {key: key for key in header.tensors}
        title = f"a {classes[name][0]}"
        return header, FilePart(title, name, classes[name], "", names, converted=True)
    parts = held_parts(header)
    fitting = [part for part in parts if set(classes[name]) & set(part.classes)]
    if len(fitting) > 1:
        fitting = [part for part in fitting if part.place(classes) == name] or fitting
    if len(fitting) == 1:
        return header, fitting[0]
    held = ", ".join(f"{part.prefix} {part.title}".strip() for part in fitting or parts)
    allowed = f"must be{' one' if fitting else ''} of class {' or '.join(classes[name])}"
    raise InvalidCheckpoint(f"component={name}={path.name}: holds {held}; {allowed}")


def _is_known(class_name: str) -> bool:
    """True for a class whose weights are recognised in files."""
    layouts = (layout.denoiser for family in FAMILIES for layout in family.single_files)
    return class_name in layouts or any(class_name in kind.classes for kind in KINDS)


def recognise(path: Path) -> Recognised:
    """Recognise a file. Raises InvalidCheckpoint that describes an unknown or damaged one."""
    return _recognised(understood(read_header(path)))


def _recognised(header: Header) -> Recognised:
    shapes = _shapes(header)
    found = [
        Recognised(header, family, layout, prefix)
        for family in FAMILIES
        for layout in family.single_files
        if (prefix := layout.prefix(shapes)) is not None
    ]
    if found:
        most = max(len(each.layout.has) for each in found)
        first, *others = [each for each in found if len(each.layout.has) == most]
        return replace(first, alike=tuple(each.family for each in others))
    raise InvalidCheckpoint(f"{header.path.name}: {_looks_like(header)}")


def _shapes(header: Header) -> Mapping[str, tuple[int, ...]]:
    return {name: info.shape for name, info in header.tensors.items()}


def _looks_like(header: Header) -> str:
    names = header.tensors.keys()
    if unreadable := _unreadable(names):
        return f"is {unreadable}"
    known = ", ".join(dict.fromkeys(f.title for f in FAMILIES if f.single_files))
    if not names:
        return "holds no tensors"
    held = ", ".join(sorted(names)[:_SHOWN])
    what = f"not a model of a known layout ({known}): its {len(names)} tensors are {held}, …"
    if parts := _without_denoiser(header):
        titles = ", ".join(part.title for part in parts)
        return f"{what}; it holds {titles}: pass it as --component {parts[0].component}=FILE"
    if near := _nearest(names):
        return f"{what}; it looks like {near}"
    for marks, other in _OTHERS:
        if any(mark in name for mark in marks for name in names):
            return f"{what}; it looks like {other}"
    architecture = header.metadata.get("general.architecture")
    return f"{what}; its metadata says that it is {architecture!r:.60}" if architecture else what


def _unreadable(names: Collection[str]) -> str | None:
    """The variant of a known layout that a file is of."""
    layouts = (layout for family in FAMILIES for layout in family.single_files)
    marks = (mark for layout in layouts for mark in layout.unreadable.items())
    ends = {name.rpartition(".")[2] for name in names}
    return next((what for name, what in marks if name in ends), None)


def _nearest(names: Collection[str]) -> str | None:
    """Known layout with the most matching tensor names."""
    found = []
    for family in FAMILIES:
        for layout in family.single_files:
            missing = layout.missing(names)
            if 0 < len(missing) < len(layout.keys):
                has = f"{family.title} ({layout.style} names), which also has {', '.join(missing)}"
                found.append((len(missing), has))
    return min(found)[1] if found else None
