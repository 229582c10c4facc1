"""Counts the weights of published checkpoints by making their modules without numbers.

`python tests/helpers/count_weights.py` writes the counts, and what was tried of each layout, into
`published.json`, whose other facts are written by hand.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from native import parts_of
from published_layouts import LAYOUTS, Config
from torch import nn
from tried_forms import tried

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.published import MILLION, PUBLISHED_FACTS
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.tensors.when_loaded import when_loaded

Counts = dict[str, list[int]]
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
        native = importlib.import_module(
            f"multimodal_gen.runtime.pipelines.{family.module}"
        ).PIPELINE.native
        with torch.device("meta"):
            return native.make(native.config_class.from_dict(config), parts_of())
    encodes = name.startswith(("text_encoder", "image_encoder"))
    library = spec.library if spec else "transformers" if encodes else "diffusers"
    idle, depth = (spec.idle, spec.depth) if spec else ((), None)
    return LibraryModule(library, kind, config, name, idle, depth).outline(torch.bfloat16)


def _count(name: str, module: nn.Module) -> Iterator[int]:
    tied: Mapping[str, str] = getattr(module, "all_tied_weights_keys", {})
    yield sum(p.numel() for key, p in module.named_parameters() if key not in tied)
    quantized = when_loaded(name, "fp8")
    layers = quantized.layers(module) if quantized else set()
    yield sum(module.get_submodule(layer).weight.numel() for layer in layers)


def main() -> None:
    families = {family.name: family for family in FAMILIES}
    facts = json.loads(PUBLISHED_FACTS.read_bytes())
    for family, models in facts.items():
        for model in models:
            name = model["name"]
            found = {"weights": counts(families[family], name), "tried": tried(name)}
            model.update(found)
            for key in _LAST:
                if not model[key]:
                    del model[key]
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
