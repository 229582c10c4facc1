"""Writes the table of diffusers' pipelines, from the classes of the installed version.

Run `python -m multimodal_gen.runtime.pipelines.fallback.write_table` after a change of diffusers.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import diffusers
import msgspec
import transformers
from diffusers.guiders.guider_utils import BaseGuidance

from multimodal_gen.configs.families.library_pipelines import TABLE, LibraryPipeline, LibraryTable
from multimodal_gen.messages.model_info import TaskName
from multimodal_gen.runtime.pipelines.fallback import facts

_NO_CALLBACKS = "has no step callbacks, and no loop that its scheduler alone steps"
_DEPRECATED = "deprecated in diffusers"
_MODULAR = "a modular pipeline: its checkpoints have a modular_model_index.json"
_INPUTS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "images", "input_images", "reference_images", "cond_image"),
    "mask": ("mask_image", "mask"),
    "last_image": ("last_image",),
    "video": ("video", "control_video", "conditioning_frames"),
}
"""Our input pictures, with their names in the calls; `image_2` is what `_SECOND` names."""
_SECOND = ("control_image", "original_image", "image_reference")
_OUTPUTS = {"images": "image", "image": "image", "frames": "video", "video": "video"}


def library_table() -> LibraryTable:
    """Make the table of the installed diffusers."""
    names = sorted(name for name in dir(diffusers) if name.endswith("Pipeline"))
    refused = {name: reason for name in names if (reason := _refusal(name))}
    known = [name for name in names if name not in refused]
    return LibraryTable(
        diffusers=diffusers.__version__,
        pipelines={name: _described(name) for name in known},
        refused=refused,
        components=_components(known),
    )


def table_text() -> str:
    """Return the text of the table's file."""
    return msgspec.json.format(msgspec.json.encode(library_table()), indent=1).decode() + "\n"


def _refusal(name: str) -> str | None:
    """The reason why a pipeline can't be run; None if it can."""
    kind = getattr(diffusers, name)
    if kind.__module__.startswith("diffusers.utils.dummy_"):
        return f"needs packages that are missing: {', '.join(kind._backends)}"
    if not issubclass(kind, diffusers.DiffusionPipeline):
        return _MODULAR
    if ".deprecated." in kind.__module__:
        return _DEPRECATED
    if name in facts.REFUSED:
        return facts.REFUSED[name]
    if calls := sorted(_downloads(kind)):
        return f"downloads or unpickles files while it runs: {', '.join(calls)}"
    if _output(kind) is None:
        return f"makes neither pictures nor videos, but {_returned(kind) or 'nothing'}"
    lacking = [
        each.name
        for each in _parameters(kind).values()
        if each.default is each.empty and each.name not in _given(kind)
    ]
    if lacking:
        return f"needs inputs that this server does not have: {', '.join(lacking)}"
    return None if _is_stepped(kind) else _NO_CALLBACKS


def _described(name: str) -> LibraryPipeline:
    kind = getattr(diffusers, name)
    inputs = {**_inputs(kind), **facts.INPUTS.get(name, {})}
    return LibraryPipeline(
        tasks=facts.TASKS.get(name) or _tasks(kind, inputs),
        inputs=inputs,
        control=_control(kind, inputs),
        images=facts.SEVERAL.get(name, 2 if "image_2" in inputs else 1),
        size_multiple=facts.MULTIPLES.get(name, 1),
        size=facts.SIZES.get(name),
        num_frames=facts.FRAMES.get(name),
        fps=_fps(kind) if _output(kind) == "video" else None,
    )


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """Named parameters of a pipeline's call."""
    found = inspect.signature(kind.__call__).parameters
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: each for name, each in found.items() if name != "self" and each.kind not in several
    }


def _given(kind: type[Any]) -> set[str]:
    """Parameters of a call that this server has a value for."""
    return {"prompt", "negative_prompt", *_inputs(kind).values()}


def _inputs(kind: type[Any]) -> dict[str, str]:
    """Names of the input pictures in a pipeline's call, by ours."""
    call = _parameters(kind)
    if "control_mask" in call:
        return {"image": "control_image", "mask": "control_mask"}
    found = {
        ours: theirs
        for ours, names in _INPUTS.items()
        if (theirs := next((each for each in names if each in call), None))
    }
    second = next((each for each in _SECOND if each in call), None)
    if second is not None:
        found["image_2" if "image" in found else "image"] = second
    return found


def _control(kind: type[Any], inputs: Mapping[str, str]) -> str | None:
    """Name in its call of the picture that steers it; none for a video, or one with a mask of its
    own."""
    has_network = bool({"controlnet", "adapter"} & inspect.signature(kind).parameters.keys())
    steering = "control_image" if "control_image" in _parameters(kind) else "image"
    steered = has_network or steering == "control_image"
    masked = inputs.get("image") == steering and "mask" in inputs
    return steering if steered and not masked and steering in inputs.values() else None


def _tasks(kind: type[Any], inputs: Mapping[str, str]) -> tuple[TaskName, ...]:
    """Tasks, by what it takes and makes."""
    name, conditioned = kind.__name__, [each for each in ("image", "video") if each in inputs]
    optional = not conditioned or name in facts.OPTIONAL
    if _output(kind) == "video":
        image: TaskName = (
            "reference-to-video" if inputs.get("image") == "reference_images" else "image-to-video"
        )
        both: tuple[tuple[str, TaskName], ...] = (("image", image), ("video", "video-to-video"))
        first: tuple[TaskName, ...] = ("text-to-video",) if optional else ()
        return (*first, *(task for given, task in both if given in inputs))
    first = ("text-to-image",) if optional else ()
    if "mask" in inputs and name not in facts.OPTIONAL:
        return (*first, "inpainting")
    if "image" not in inputs:
        return first
    starts = "strength" in _parameters(kind)
    return (*first, "image-to-image" if starts else "image-edit")


def _call(kind: type[Any]) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(kind.__call__)))


def _returned(kind: type[Any]) -> str:
    """Fields of the output that its call returns."""
    for node in ast.walk(_call(kind)):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            called = getattr(node.value.func, "id", "")
            fields = [str(each.arg) for each in node.value.keywords]
            if called.endswith("Output"):
                return ", ".join(fields) or "images"
    return ""


def _output(kind: type[Any]) -> str | None:
    """image, video or None."""
    return _OUTPUTS.get(_returned(kind).split(",")[0])


def _is_stepped(kind: type[Any]) -> bool:
    """True if its call can be interrupted at each step."""
    call = _parameters(kind)
    if "callback_on_step_end" in call:
        return "latents" in getattr(kind, "_callback_tensor_inputs", ())
    if "callback" in call:
        return True
    text = ast.unparse(_call(kind))
    loops = "progress_bar" in text and text.count("self.scheduler.step(") == 1
    return loops and "prompt" in call


def _downloads(kind: type[Any]) -> Iterator[str]:
    """Calls in its methods that read or download other files."""
    for owner in kind.__mro__:
        is_base = owner.__module__.endswith("pipeline_utils")
        if not owner.__module__.startswith("diffusers.pipelines.") or is_base:
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner)))):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)).endswith(_LOADERS):
                yield name


_LOADERS = (
    ".from_pretrained",
    "torch.load",
    "hf_hub_download",
    "snapshot_download",
    "load_image",
    "urlopen",
    "requests.get",
    "SafetyChecker",
)


def _fps(kind: type[Any]) -> int:
    """Frames per second: the call's own default, or those of the example in its documentation."""
    call = _parameters(kind)
    for name in ("fps", "frame_rate"):
        if name in call and isinstance(call[name].default, int | float):
            return int(call[name].default)
    if kind.__name__ in facts.FPS:
        return facts.FPS[kind.__name__]
    documented = getattr(inspect.getmodule(kind), "EXAMPLE_DOC_STRING", "")
    found = re.search(r"fps=(\d+)", documented)
    return int(found.group(1)) if found else facts.USUAL_FPS


def _components(pipelines: list[str]) -> dict[str, tuple[str, ...]]:
    """Classes of components that these pipelines name, as library.class, by kind."""
    found: dict[str, set[str]] = {kind: set(named) for kind, named in facts.CLASSES.items()}
    for name in pipelines:
        kind = getattr(diffusers, name)
        for hint in get_type_hints(kind.__init__).values():
            for own in _types(hint):
                if (loading := _loading(own)) is not None:
                    found[loading].add(f"{_library(own)}.{own.__name__}")
    guiders = (each for each in dir(diffusers) if _is_guider(getattr(diffusers, each, None)))
    found["guider"] = {f"diffusers.{name}" for name in guiders}
    return {kind: tuple(sorted(names)) for kind, names in found.items()}


def _types(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for each in get_args(hint):
        yield from _types(each)


def _loading(kind: type[Any]) -> str | None:
    """The kind of a component of this class; None for what is not loaded."""
    name = kind.__name__
    if not kind.__module__.startswith(("diffusers.", "transformers.")):
        return None
    if name in facts.NEVER_LOADED or ("Multi" in name and "Lingual" not in name):
        return None  # several ControlNets are folders in a folder
    if issubclass(kind, diffusers.SchedulerMixin):
        return None
    if issubclass(kind, transformers.PreTrainedModel):
        return None if "PreTrained" in name else "transformers"
    if issubclass(kind, diffusers.ModelMixin):
        return "diffusers"
    if issubclass(kind, transformers.PreTrainedTokenizerBase):
        return None if name == "PreTrainedTokenizerBase" else "tokenizer"
    if name.endswith(("ImageProcessor", "ImageProcessorPil", "FeatureExtractor")):
        return "image_processor"
    return None


def _library(kind: type[Any]) -> str:
    """Library of a class as model_index.json has it: the folder, of a pipeline's own modules."""
    parts = kind.__module__.split(".")
    return parts[2] if parts[:2] == ["diffusers", "pipelines"] else parts[0]


def _is_guider(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseGuidance) and kind is not BaseGuidance


if __name__ == "__main__":
    TABLE.write_text(table_text())
