"""Finds out what follows from the configs of published checkpoints: how many weights they have, and
their default sizes and steps.

`python tests/helpers/published_facts.py` writes that, and what was tried of each layout, into
`published.json`, whose other facts are written by hand.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from native import parts_of
from published_layouts import LAYOUTS, Config
from torch import nn
from tried_forms import tried

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.published import MILLION, PUBLISHED_FACTS
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.tensors.when_loaded import when_loaded

Counts = dict[str, list[int]]
FOUND = ("steps", "size", "frames", "weights", "tried")
_LAST = ("weights", "tried")


def counts(family: FamilyConfig, model: str) -> Counts:
    """By component: all weights and those that `--quantization` applies to, in millions."""
    return {
        name: [round(number / MILLION) for number in _count(name, _module(family, name, *part))]
        for name, part in LAYOUTS[model].parts.items()
    }


def _module(family: FamilyConfig, name: str, kind: str, config: Config) -> nn.Module:
    spec = family.components.get(name)
    if spec is not None and spec.kind == "native":
        native = _pipeline(family).native
        with torch.device("meta"):
            return native.make(native.config_class.from_dict(config), parts_of())
    library = _library(family, name)
    idle, depth = (spec.idle, spec.depth) if spec else ((), None)
    return LibraryModule(library, kind, config, name, idle, depth).outline(torch.bfloat16)


def _count(name: str, module: nn.Module) -> Iterator[int]:
    tied: Mapping[str, str] = getattr(module, "all_tied_weights_keys", {})
    yield sum(p.numel() for key, p in module.named_parameters() if key not in tied)
    quantized = when_loaded(name, "fp8")
    layers = quantized.layers(module) if quantized else set()
    yield sum(module.get_submodule(layer).weight.numel() for layer in layers)


def defaults(family: FamilyConfig, model: str, pipeline: str | None, folder: Path) -> Defaults:
    """Default parameters of a checkpoint with these configs; written to an empty folder."""
    layout = LAYOUTS[model]
    index = {"_class_name": pipeline or family.pipeline_classes[0], **layout.index}
    modular = "Modular" in index["_class_name"]
    settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", **layout.scheduler}
    parts = {**layout.parts, "scheduler": (settings["_class_name"], settings)}
    for name, (kind, config) in parts.items():
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        _write(folder / name / file, {"_class_name": kind, **config})
        source = [{"pretrained_model_name_or_path": "a/b"}] if modular else []
        index[name] = [_library(family, name), kind, *source]
    _write(folder / ("modular_model_index.json" if modular else "model_index.json"), index)
    checkpoint = Checkpoint.open(folder)
    return _pipeline(family).variant(checkpoint).default_params(checkpoint)


def _write(path: Path, content: Config) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _pipeline(family: FamilyConfig) -> Any:
    return importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}").PIPELINE


def _library(family: FamilyConfig, name: str) -> str:
    spec = family.components.get(name)
    encodes = name.startswith(("text_encoder", "image_encoder"))
    return spec.library if spec else "transformers" if encodes else "diffusers"


def differing(family: FamilyConfig, found: Defaults) -> dict[str, Any]:
    """Steps, size and frames that are not the family's."""
    own, usual = sizes(found), sizes(family.defaults)
    return {name: value for name, value in own.items() if value != usual[name]}


def sizes(found: Defaults) -> dict[str, Any]:
    """Steps, size and frames, as `published.json` has them."""
    return {
        "steps": found.num_inference_steps,
        "size": [found.width, found.height],
        "frames": found.num_frames,
    }


def main() -> None:
    families = {family.name: family for family in FAMILIES}
    facts = json.loads(PUBLISHED_FACTS.read_bytes())
    for name, models in facts.items():
        for model in models:
            family, called = families[name], model["name"]
            for key in FOUND:
                model.pop(key, None)
            with TemporaryDirectory() as folder:
                found = defaults(family, called, model.get("pipeline"), Path(folder))
            model.update(differing(family, found))
            counted = {"weights": counts(family, called), "tried": tried(called)}
            model.update({key: value for key, value in counted.items() if value})
    PUBLISHED_FACTS.write_text(_text(facts))


def _text(facts: Mapping[str, list[dict[str, Any]]]) -> str:
    """JSON with a line for the facts of a model, and one for each of what is counted."""
    families = []
    for family, models in facts.items():
        told = []
        for model in models:
            parts = [{k: v for k, v in model.items() if k not in _LAST}]
            parts += [{key: model[key]} for key in _LAST if key in model]
            told.append(",\n    ".join(json.dumps(part)[1:-1] for part in parts))
        families.append(f' "{family}": [\n   {{' + "},\n   {".join(told) + "}\n ]")
    return "{\n" + ",\n".join(families) + "\n}\n"


if __name__ == "__main__":
    main()
