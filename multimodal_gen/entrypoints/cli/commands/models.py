"""`multimodal-gen models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.published import defaults_of, published_models
from multimodal_gen.entrypoints.cli.checkpoint.published_text import (
    description,
    licenses_of,
    memory_texts,
    size_text,
)
from multimodal_gen.entrypoints.cli.text_output import columns
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import TaskName

if TYPE_CHECKING:
    from multimodal_gen.launch.device_memory import DeviceMemory

_HEAD = ("family", "tasks", "models", "size", "steps", "GB 16/8/4 bit", "license")
_SHORT_TASKS: Mapping[TaskName, str] = {
    "text-to-image": "t2i",
    "image-to-image": "i2i",
    "inpainting": "inpaint",
    "image-edit": "edit",
    "text-to-video": "t2v",
    "image-to-video": "i2v",
    "video-to-video": "v2v",
    "reference-to-video": "r2v",
}
_MEMORY = "memory of all weights, and of those that are needed at once"


def models(
    path: str | None = None,
    /,
    *,
    family: str | None = None,
    component: tuple[str, ...] = (),
    device_memory_gb: float | None = None,
    revision: Annotated[str | None, Parameter(show=False)] = None,
) -> int:
    """List the model families, or describe the checkpoint at PATH without loading it.

    Parameters
    ----------
    path
        Folder, .safetensors or .gguf file, or hub name that is in the cache.
    family
        Describe one family.
    component
        NAME=FILE: a weight file of one component, as for `generate`. Repeatable.
    device_memory_gb
        GB of a GPU to plan for. Default: what is free on this machine's.
    """
    if path is not None:
        from multimodal_gen.entrypoints.cli.checkpoint.checkpoint_report import report
        from multimodal_gen.launch.model_path import locate

        checked = EngineArgs(component=component, device_memory_gb=device_memory_gb)
        files = checked.component_files
        own = {name: locate(file) for name, file in files.items()}
        return report(locate(path, revision), _device(device_memory_gb), own)
    if family is not None:
        print(_description(_named(family)))
        return 0
    print("\n".join(columns([_HEAD, *map(_row, FAMILIES)])))
    return 0


def _device(gigabytes: float | None) -> DeviceMemory | None:
    from multimodal_gen.launch.device_memory import DeviceMemory, device_at_hand

    if gigabytes is None:
        return device_at_hand()
    return DeviceMemory("a GPU", is_cpu=False, free=int(gigabytes * 1e9))


def _named(name: str) -> FamilyConfig:
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise InvalidRequest("family", name, f"must be one of {known}")


def _row(family: FamilyConfig) -> tuple[str, ...]:
    """Facts about the best known checkpoint of a family."""
    published = published_models(family)
    memory = memory_texts(family, published[0]) if published else ()
    defaults = defaults_of(family, published[0]) if published else family.defaults
    return (
        family.name,
        _shortened([_SHORT_TASKS[task] for task in family.tasks], " ", most=3),
        str(len(published)),
        size_text(defaults),
        str(defaults.num_inference_steps),
        " ".join(f"{each:>4}" for each in memory).rstrip(),
        _shortened([name.split("-license")[0] for name in licenses_of(published)], ", ", most=1),
    )


def _shortened(names: Sequence[str], between: str, most: int) -> str:
    shown = between.join(names[:most])
    return shown if len(names) <= most else f"{shown} +{len(names) - most}"


def _description(family: FamilyConfig) -> str:
    known = family.defaults
    defaults = {
        name: getattr(known, name)
        for name in known.__struct_fields__
        if getattr(known, name) is not None
    }
    shared = "rows" if family.shares_rows else "nothing"
    shared = "sequence, heads and features, and rows" if family.ulysses else shared
    styles = ", ".join(family.file_styles)
    images = family.limits.max_images
    several = {"input images": f"up to {images} in one request"} if images > 1 else {}
    rows = {
        "tasks": ", ".join(family.tasks),
        "checkpoints": ", ".join(family.pipeline_classes),
        "single files": f"safetensors, GGUF; {styles} names" if styles else "none",
        "denoiser": f"{family.denoiser}; ranks share {shared}",
        "schedulers": ", ".join(family.schedulers) or "the checkpoint's own",
        "noise schedules": ", ".join(family.noise_schedules) or "the checkpoint's own",
        "parameters": ", ".join((*family.parameters, *family.schedule_parameters))
        or "none of its own",
        "sizes": f"multiples of {family.size_multiple}, up to {family.limits.max_pixels} pixels",
        **several,
        "defaults": ", ".join(f"{name} {value}" for name, value in defaults.items()),
    }
    lines = [f"  {name:<17}{value}" for name, value in rows.items()]
    published = [*description(family)]
    told = ["", f"Published checkpoints ({_MEMORY}):", *published] if published else []
    return "\n".join([f"{family.name} ({family.title})", *lines, *told])
