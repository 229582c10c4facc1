"""Text about published checkpoints, for `multimodal-gen models` and the tables of the pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.families.published import (
    MILLION,
    PublishedModel,
    defaults_of,
    published_models,
)
from multimodal_gen.entrypoints.cli.checkpoint.published_memory import FORMS, weight_memory
from multimodal_gen.entrypoints.cli.text_output import scaled
from multimodal_gen.messages.model_info import Defaults

UNKNOWN = "see its model card"
_GIGABYTE, _EXACT_BELOW = 1e9, 10


def size_text(defaults: Defaults) -> str:
    """Width, height and, of a video, frames: `832×480×81`."""
    sizes = [defaults.width, defaults.height]
    return "×".join(map(str, sizes if defaults.num_frames == 1 else [*sizes, defaults.num_frames]))


def gigabytes(number: float) -> str:
    """Number of gigabytes without the unit, to two digits or more: `8.3`, `34`."""
    return f"{number / _GIGABYTE:.{0 if number >= _EXACT_BELOW * _GIGABYTE else 1}f}"


def memory_texts(family: FamilyConfig, model: PublishedModel) -> tuple[str, ...]:
    """Gigabytes of all weights in each form; empty texts if they are not known."""
    found = (weight_memory(family, model, bits) for bits in FORMS)
    return tuple("" if each is None else gigabytes(each.whole) for each in found)


def at_once_text(family: FamilyConfig, model: PublishedModel) -> str:
    """Gigabytes in 16 bits of the components that are needed at once."""
    found = weight_memory(family, model, 16)
    return "" if found is None else gigabytes(found.at_once)


def licenses_of(models: Iterable[PublishedModel]) -> tuple[str, ...]:
    """The licenses of these models, each once, and last that there are others."""
    names = dict.fromkeys(model.license or UNKNOWN for model in models)
    return tuple(sorted(names, key=UNKNOWN.__eq__))


def description(family: FamilyConfig) -> Iterator[str]:
    """Yield lines about each published checkpoint of a family."""
    for model in published_models(family):
        yield f"  {model.name}"
        yield from (f"    {name:<17}{value}" for name, value in _facts(family, model).items())


def _facts(family: FamilyConfig, model: PublishedModel) -> dict[str, str]:
    defaults = defaults_of(family, model)
    counts = [
        f"{name} {scaled(count.all * MILLION, ('', 'K', 'M', 'B'))}"
        for name, count in model.weights.items()
    ]
    in_16, in_8, in_4 = memory_texts(family, model)
    at_once = at_once_text(family, model)
    memory = f"{in_16} GB in 16 bits ({at_once} at once), {in_8} in 8, {in_4} in 4"
    return {
        "license": model.license or UNKNOWN,
        "defaults": f"{size_text(defaults)}, {defaults.num_inference_steps} steps",
        "parameters": ", ".join(counts) or UNKNOWN,
        "memory": memory if in_16 else UNKNOWN,
        "layout tried as": ", ".join(model.tried) or "nothing",
    }
