"""Names under which a checkpoint has the tensors of a library's module.

They may differ from the module's: old checkpoints, a module's parts without their whole, tensors
that are stored once and used twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import conversion_mapping, core_model_loading

from multimodal_gen.runtime.loader.tensors.stored import Span, Stored

Value = TypeVar("Value")


def diffusers_names(module: Any, stored: Mapping[str, Value]) -> dict[str, Value]:
    """`stored` under the names of a module of diffusers, without those that its class ignores."""
    renamed = dict(stored)
    module._fix_state_dict_keys_on_load(renamed)
    return _without(renamed, module._keys_to_ignore_on_load_unexpected or ())


def transformers_names(module: Any, stored: Mapping[str, Value]) -> dict[str, Value] | None:
    """`stored` under the names of a module of transformers, without those that its class ignores;
    None if tensors must be converted, not only renamed."""
    known = module.state_dict()
    changes = conversion_mapping.get_model_conversion_mapping(module)
    renamings = [each for each in changes if isinstance(each, core_model_loading.WeightRenaming)]
    converters = [each for each in changes if isinstance(each, core_model_loading.WeightConverter)]
    renamed = {}
    for key, tensor in stored.items():
        told = (module.base_model_prefix, known)
        name, converter = core_model_loading.rename_source_key(key, renamings, converters, *told)
        if name not in known and key in known:
            name, converter = core_model_loading.rename_source_key(key, [], [], *told)
        if converter is not None:
            return None
        renamed[name] = tensor
    # Patterns such as GPT-2's `attn.bias` match names that the module has as well.
    expected = {name: tensor for name, tensor in renamed.items() if name in known}
    return _without(renamed, _ignored(module)) | expected


def _ignored(module: Any) -> set[str]:
    """Patterns of names that a checkpoint may have and the module does not: once saved, now
    computed."""
    buffers = [name for name, _ in module.named_buffers()]
    computed = {
        r"rotary_emb\.inv_freq": "rotary_emb.inv_freq",
        r"(^|\.)position_ids$": "position_ids",
    }
    patterns = {
        pattern
        for pattern, name in computed.items()
        if any(buffer.endswith(name) for buffer in buffers)
    }
    return patterns | set(module._keys_to_ignore_on_load_unexpected or ())


def _without(stored: Mapping[str, Value], patterns: Iterable[str]) -> dict[str, Value]:
    found = [re.compile(pattern) for pattern in patterns]
    return {
        name: each
        for name, each in stored.items()
        if not any(pattern.search(name) for pattern in found)
    }


def with_owners(module: Any, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """`stored` with each tensor that layers share once, under the name of the one that owns it.

    A tensor of its own, which some files have in spite of the config, stays.
    """
    named = dict(stored)
    for sharer, owner in _shared(module).items():
        if sharer in named and (owner not in named or _are_equal(named[sharer], named[owner])):
            named[owner] = named.pop(sharer)
    return named


def _are_equal(one: Stored, other: Stored) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    first, second = (Span(each, 0, each.shape[0]).chunks() for each in (one, other))
    return all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def without_layers(stored: Mapping[str, Value], layers: Sequence[str]) -> dict[str, Value]:
    """`stored` without the tensors of these layers."""
    idle = tuple(f"{name}." for name in layers)
    return {key: each for key, each in stored.items() if not key.startswith(idle)}


def with_depth(stored: Mapping[str, Value], depth: int) -> dict[str, Value]:
    """`stored` without the layers of a language model from number `depth` on."""
    layers = {key: re.search(r"(?:^|\.)layers\.(\d+)\.", key) for key in stored}
    return {
        key: each
        for key, each in stored.items()
        if (layer := layers[key]) is None or int(layer[1]) < depth
    }


def tied_layers(module: Any, stored: Mapping[str, object]) -> dict[str, str]:
    """Layers that share the weight of another, each with that one's name; not those of which
    `stored` has a weight of their own."""
    return {
        _layer(sharer): _layer(owner)
        for sharer, owner in _shared(module).items()
        if sharer not in stored and has_layer(module, _layer(sharer))
    }


def _shared(module: Any) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(module, "all_tied_weights_keys", {})
    return found


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def has_layer(module: nn.Module, name: str) -> bool:
    return name in dict(module.named_modules())


def set_layer(module: nn.Module, name: str, layer: nn.Module | None) -> None:
    """Set a layer of `module`; None takes it out."""
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
