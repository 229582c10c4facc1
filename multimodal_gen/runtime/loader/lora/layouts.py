"""Normalises the tensor names of LoRA files to component, module, down and up.

Supports PEFT's and diffusers' layouts (old and new), and those that the family's converter in
diffusers handles: kohya's, ComfyUI's and some trainers'.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint

log = logging.getLogger(__name__)

LoraConverter = Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Mapping[str, Any]]]
"""Converts another layout to diffusers' own: the weights and, by name, alphas."""

_KEY = re.compile(
    r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up)(?:\.default)?"
    r"\.(?P<kind>weight|bias)$"
)
_ENCODERS = ("lora_te", "text_encoder")
_WRAPPERS = ("base_model.model.", "diffusion_model.")
_OTHERS = {
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "ia3": "IA3",
    "lora_mid": "a LoCon with a Tucker core",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
}


@dataclass
class Pair:
    """One module's part of a LoRA, as stored in the file."""

    down: Tensor | None = None
    up: Tensor | None = None
    bias: Tensor | None = None
    alpha: float | None = None
    """None: the rank, so that up(down(x)) is not scaled."""


Pairs = dict[tuple[str, str], Pair]
"""Pairs by component and diffusers' name of the module."""


def refused(keys: Collection[str]) -> str | None:
    """Describe content that is not plain LoRA; None if there is none."""
    for mark, what in _OTHERS.items():
        if any(mark in key for key in keys):
            return what
    return None


class Names:
    """Modules that a LoRA may have weights for, by component, the denoiser first."""

    def __init__(self, modules: Mapping[str, Collection[str]]) -> None:
        self._modules = modules
        self.denoiser = next(iter(modules))

    def find(self, name: str) -> tuple[str, str] | None:
        """Resolve `transformer.x`, or `x` without a component, to component and module."""
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        component, _, rest = name.partition(".")
        known = self._modules.get(component)
        if known is not None and (found := _in(known, rest)):
            return component, found
        for other, modules in self._modules.items():
            if found := _in(modules, name):
                return other, found
        return None


def _in(modules: Collection[str], name: str) -> str | None:
    """The name as used here: transformers versions differ in whether CLIP's layers are in
    `text_model`."""
    short = name.removeprefix("text_model.")
    return next((n for n in (name, short, f"text_model.{short}") if n in modules), None)


def pairs_of(
    tensors: Mapping[str, Tensor], names: Names, converter: LoraConverter | None
) -> tuple[Pairs, dict[str, Any]]:
    """Group a file's tensors by module; also returns those without a module.

    `converter` is used if the keys are not those of diffusers' modules.
    """
    pairs, unknown = _sorted(tensors, {}, names)
    if not unknown or converter is None:
        return pairs, unknown
    try:
        converted, alphas = converter(dict(tensors))
    except Exception as error:  # of any type for another model's keys; our error is clearer
        log.info("diffusers can't convert the keys: %s: %s", type(error).__name__, error)
        return pairs, unknown
    found, left = _sorted(converted, alphas, names)
    beside = {key: value for key, value in unknown.items() if not key.startswith(_ENCODERS)}
    if beside and not left and not any(component == names.denoiser for component, _ in found):
        return pairs, beside  # some converters drop unknown keys
    return found, left


def scaled_by(pairs: Pairs, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Set alphas from PEFT's config of each component, which override those in the file."""
    for (component, name), pair in pairs.items():
        config = configs.get(component)
        if config and pair.down is not None:
            pair.alpha = _alpha(config, name, rank=len(pair.down))


def _alpha(config: Mapping[str, Any], name: str, rank: int) -> float:
    """Compute alpha as PEFT does: by pattern or for all, relative to the rank or its root."""
    alpha = float(config.get("lora_alpha", 8))
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if _matches(pattern, name):
            alpha = float(own)
            break
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _matches(pattern: str, name: str) -> bool:
    """Match like PEFT, whose patterns are regular expressions; any pattern that is not a plain name
    is refused, because matching an untrusted one could take forever."""
    plain = pattern.removeprefix("^").replace("\\.", ".")
    if not re.fullmatch(r"[\w.-]+", plain):
        raise InvalidCheckpoint(f"alpha_pattern: {pattern!r:.100} must be the name of a module")
    return name == plain or (not pattern.startswith("^") and name.endswith(f".{plain}"))


def _sorted(
    tensors: Mapping[str, Tensor], alphas: Mapping[str, Any], names: Names
) -> tuple[Pairs, dict[str, Any]]:
    pairs: Pairs = {}
    unknown: dict[str, Any] = {}
    for key, value in [*tensors.items(), *alphas.items()]:
        parsed = _KEY.match(_modern(key.removesuffix(".alpha")))
        is_alpha = key.endswith(".alpha")
        module = parsed["module"] if parsed else key.removesuffix(".alpha")
        found = names.find(module) if parsed or is_alpha else None
        if found is None:
            unknown[key] = value
            continue
        pair = pairs.setdefault(found, Pair())
        if is_alpha:
            pair.alpha = float(value)
        elif parsed is not None and parsed["side"] in ("A", "down"):
            pair.down = value
        elif parsed is not None and parsed["kind"] == "bias":
            pair.bias = value
        else:
            pair.up = value
    return pairs, unknown


def _modern(key: str) -> str:
    """Rename diffusers' older names of layers and of LoRA parts to the current ones."""
    from diffusers.utils import state_dict_utils as layouts

    if key.startswith("text_encoder"):
        mapping = {**layouts.DIFFUSERS_OLD_TO_PEFT, **layouts.DIFFUSERS_TO_PEFT}
    else:
        mapping = layouts.UNET_TO_DIFFUSERS
    converted: dict[str, None] = layouts.convert_state_dict({key: None}, mapping)
    return next(iter(converted))
