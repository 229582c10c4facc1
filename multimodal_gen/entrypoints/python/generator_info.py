"""A model in a few lines to read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.messages.model_info import ModelInfo

_COLUMNS = 100


@dataclass(frozen=True, repr=False)
class GeneratorInfo:
    """The model of a generator, as text: print it, or end a notebook's cell with it."""

    text: str

    @classmethod
    def of(cls, model: ModelInfo, args: EngineArgs | None) -> GeneratorInfo:
        """`args`: those of the engine, where it was started here."""
        rows = list(_rows(model, args))
        width = max(len(name) for name, _ in rows)
        lines = (_line(f"  {name:<{width}}  ", value) for name, value in rows if value)
        return cls("\n".join((f"{model.name} ({model.family})", *lines)))

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"


def _line(start: str, value: str) -> str:
    further = " " * len(start)
    return textwrap.fill(value, _COLUMNS, initial_indent=start, subsequent_indent=further)


def _rows(model: ModelInfo, args: EngineArgs | None) -> Iterator[tuple[str, str]]:
    pictures = () if model.makes_videos else ("num_frames", "fps")
    defaults = {
        name: value
        for name in model.defaults.__struct_fields__
        if (value := getattr(model.defaults, name)) not in (None, "")
        and name not in (*model.no_effect, *pictures)
    }
    yield "device", ", ".join(filter(None, (model.device, model.dtype, model.residency)))
    yield "tasks", ", ".join(model.tasks)
    yield "sizes", _sizes(model)
    yield "frames", _frames(model)
    yield "defaults", ", ".join(f"{name} {value}" for name, value in defaults.items())
    yield "limits", _limits(model)
    yield "schedulers", ", ".join(model.schedulers)
    yield "optional parameters", ", ".join(model.parameters)
    yield "no effect", ", ".join(model.no_effect)
    if args is not None and args.lora_dir is not None:
        yield "LoRAs", ", ".join(LoraFolder(Path(args.lora_dir)).names()) or "none in lora_dir"
    if args is not None and args.control_dir is not None:
        folder = ControlFolder(Path(args.control_dir))
        yield "controls", ", ".join(folder.names()) or "none in control_dir"
    yield "notes", "; ".join(model.warnings)


def _sizes(model: ModelInfo) -> str:
    most, multiple = model.limits, model.size_multiple
    side = most.largest_side or most.max_side
    smallest = f"{most.smallest_side} to " if most.smallest_side else "up to "
    aspect = f", sides at most 1:{most.largest_aspect:g}" if most.largest_aspect else ""
    pixels = "" if most.largest_side else f", up to {most.max_pixels} pixels"
    usual = f"{model.defaults.width}x{model.defaults.height}"
    return f"{usual}; {smallest}{side} a side, multiples of {multiple}{aspect}{pixels}"


def _frames(model: ModelInfo) -> str:
    most = model.limits
    return f"{most.min_frames} to {most.max_frames}" if model.makes_videos else ""


def _limits(model: ModelInfo) -> str:
    most, tokens = model.limits, model.limits.max_sequence_length
    facts = (
        f"{most.max_steps} steps",
        f"{most.max_outputs} outputs per prompt",
        f"{most.max_images} input images" if most.max_images > 1 else "",
        "" if tokens is None else f"{tokens} tokens",
    )
    return ", ".join(filter(None, facts))
