"""Identifies the checkpoint at a path: a folder in diffusers layout, or a single weight file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from multimodal_gen.checkpoints.description import Component, Description
from multimodal_gen.checkpoints.file_parts import FilePart, listed
from multimodal_gen.checkpoints.files import inside, module_config, weight_files
from multimodal_gen.checkpoints.header import WEIGHT_SUFFIXES, read_header
from multimodal_gen.checkpoints.index import INDEX, index_name, read_index
from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.checkpoints.quantized.found_layers import logical_tensors, understood
from multimodal_gen.checkpoints.scheduler_config import scheduler_config
from multimodal_gen.checkpoints.single_file import component_part, held_parts, recognise
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.configs.families import FAMILIES, family_named
from multimodal_gen.configs.solver_choice import replacement_warning
from multimodal_gen.errors import InvalidCheckpoint

_NO_WEIGHTS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "Extractor", "Backend")
_LIBRARIES = frozenset(
    library
    for family in FAMILIES
    for library in (
        *(spec.library for spec in family.components.values()),
        *(library for library, _ in family.unused),
    )
)
_UNUSED = ("safety_checker", "feature_extractor")
"""Often listed in model_index.json but never loaded, so they may be missing."""
_NEEDED = (("transformer", "unet"), ("vae",), ("scheduler",))
"""A pipeline has one component of each group, but for a modular one, whose blocks say what they
need."""
_SHOWN = 4


def identify(path: Path) -> Description:
    """Describe the checkpoint, from JSON and headers of weight files only. Problems are listed in
    the description; raises InvalidCheckpoint if there is nothing to describe."""
    if not path.exists():
        raise InvalidCheckpoint(f"{path}: no such file or folder")
    return _file(path) if path.is_file() else _folder(path)


def index_missing(folder: Path) -> str:
    """Error message for a folder that is not in diffusers layout."""
    said = f"{folder}: has no {INDEX}, so it is not in diffusers layout"
    names = sorted(file.name for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        said += f"; it holds single files, to be given by name: {', '.join(names[:_SHOWN])}{more}"
    return said


def _file(path: Path) -> Description:
    try:
        found = recognise(path)
    except InvalidCheckpoint:
        return _component_file(path)
    layout = found.layout
    classes = {name: spec.classes for name, spec in found.family.components.items()}
    components = tuple(
        _part(
            path,
            found.header,
            part,
            "denoiser" if part.is_denoiser else part.place(classes) or part.component,
        )
        for part in found.parts
    )
    own = path.parent
    base = str(own) if (own / INDEX).is_file() else found.base.repository
    return Description(
        path=path,
        layout=f"single {found.header.format} file, {layout.style} names",
        pipeline_class=None,
        family=found.family,
        alike=found.alike,
        scheduler_settings=found.scheduler_settings,
        components=components,
        base=base,
        warnings=(f"not used: {listed(found.ignored)}",) if found.ignored else (),
    )


def _component_file(path: Path) -> Description:
    """Describe a file of one component, or of several without a denoiser. Raises InvalidCheckpoint
    that describes an unknown file."""
    header = understood(read_header(path))
    parts = held_parts(header)
    fits = (
        f"{family.name}.{name}"
        for part in parts
        for family in FAMILIES
        for name, spec in family.components.items()
        if set(spec.classes) & set(part.classes)
    )
    return Description(
        path=path,
        layout=f"single {header.format} file of {', '.join(part.title for part in parts)}",
        pipeline_class=None,
        family=None,
        components=tuple(_part(path, header, part, part.component) for part in parts),
        fits=tuple(dict.fromkeys(fits)),
    )


def component_in_file(name: str, path: Path, classes: Mapping[str, tuple[str, ...]]) -> Component:
    """Describe the component of a checkpoint that is in a file of its own; `classes` are those of
    the checkpoint's components. Raises InvalidCheckpoint."""
    if name not in classes:
        known = ", ".join(classes)
        raise InvalidCheckpoint(f"component={name}={path.name}: {name} must be one of {known}")
    header, part = component_part(name, path, classes)
    return _part(path, header, replace(part, classes=classes[name]), name)


def _part(path: Path, header: Header, part: FilePart, name: str) -> Component:
    tensors = {own: header.tensors[each] for own, each in part.names.items()}
    return Component.of(name, " or ".join(part.classes), tensors, (path,))


def _folder(folder: Path) -> Description:
    if index_name(folder) is None:
        raise InvalidCheckpoint(index_missing(folder))
    index = read_index(folder)
    listed = index.entries
    problems = []
    family = None
    try:
        family = family_named(str(index.pipeline_class), index.name)
    except InvalidCheckpoint as error:
        problems.append(error.message)
    warning = None
    if family is not None and family.views and "scheduler" in listed:
        try:
            _, scheduler = _class(listed["scheduler"])
            warning = replacement_warning(scheduler_config(folder, scheduler))
        except InvalidCheckpoint as error:
            problems.append(error.message)
    for names in _NEEDED if family is None or family.shares_rows else ():
        if not any(name in listed for name in names):
            problems.append(f"{index.name}: lists no {' or '.join(names)}")
    return Description(
        path=folder,
        layout="folder in diffusers layout",
        pipeline_class=str(index.pipeline_class),
        family=family,
        components=tuple(_component(folder, name, value) for name, value in listed.items()),
        problems=tuple(problems),
        warnings=() if warning is None else (warning,),
    )


def _component(folder: Path, name: str, value: list[object]) -> Component:
    library, class_name = _class(value)
    try:
        if library not in _LIBRARIES and name != "scheduler":
            raise InvalidCheckpoint(
                f"{INDEX}: {name}={library}.{class_name} is not an allowed class"
            )
        if name in _UNUSED:
            return Component(name=name, class_name=class_name)
        if not inside(folder, name).is_dir():
            raise InvalidCheckpoint(f"{name}: no such folder in {folder}")
        if name == "scheduler" or class_name.endswith(_NO_WEIGHTS):
            return Component(name=name, class_name=class_name)
        return _with_weights(folder, name, class_name, library)
    except InvalidCheckpoint as error:
        return Component(name=name, class_name=class_name, problem=error.message)


def _class(value: list[object]) -> tuple[str, str]:
    """Library and class of an entry of the index."""
    library, class_name = (str(part) for part in (*value, "", "")[:2])
    return library, class_name


def _with_weights(folder: Path, name: str, class_name: str, library: str) -> Component:
    module_config(folder, name)
    stem = "model" if library == "transformers" else "diffusion_pytorch_model"
    files = weight_files(folder, name, stem)
    headers = []
    for path in files.paths:
        header = read_header(path, path.relative_to(folder).as_posix())
        lacking = [key for key, file in files.weight_map.items() if file == path.name]
        lacking = sorted(set(lacking) - header.tensors.keys())
        if lacking:
            raise InvalidCheckpoint(
                f"{name}/{path.name}: lacks {len(lacking)} tensors that the index lists: "
                f"{', '.join(lacking[:_SHOWN])}"
            )
        headers.append(header)
    tensors = logical_tensors(headers, quantization_settings(folder, name))
    return Component.of(name, class_name, tensors, files.paths, files.variant)
