"""Fills a module on the meta device with tensors of memory-mapped files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.checkpoints.tensor_info import MANY_NUMBERS, is_float
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.library import KEPT_LAYERS
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.layers.take import Sources, take_parameters
from multimodal_gen.runtime.loader.tensors.sources import StoredSources
from multimodal_gen.runtime.loader.tensors.stored import Stored
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded

_SHOWN = 8
"""Maximum number of names listed per kind of mistake."""


def fill(
    module: nn.Module,
    stored: Mapping[str, Stored],
    key_map: Mapping[str, tuple[str, ...]],
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    quantization: WhenLoaded | None = None,
    keep_narrow: bool = True,
    loaded: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Set the weights of all of its modules on `device`, in `dtype`, by default each in its own.

    `key_map` lists the checkpoint's tensors for each of the module's, concatenated along dim 0. On
    a CPU, a tensor that is stored in the right type stays in the file's pages. Raises
    InvalidCheckpoint that lists tensors that are missing, unexpected or of the wrong shape; `name`
    is the component's. `loaded` is told which fraction is done, now and then.

    A module's class may define `keep_in_float32`, parts of tensor names that are not cast to
    `dtype`, and `ignored`, parts of a checkpoint's names that it does not use. `quantization` is
    how weights of linear layers are quantised meanwhile. `keep_narrow` lets a CPU keep those of
    large modules in the file's pages if they are narrower than `dtype`.
    """
    ignored = getattr(module, "ignored", ())
    stored = {key: tensor for key, tensor in stored.items() if not _has_part(key, ignored)}
    wanted = _wanted(module, stored, key_map)
    _check(wanted, key_map, stored, name)
    numbers = sum(math.prod(tensor.shape) for tensor in wanted.values())
    keep_narrow = keep_narrow and device.type == "cpu" and numbers >= MANY_NUMBERS
    quantized = quantization.layers(module) if quantization else set()

    def sources_of(key: str) -> Sources:
        owner, _, parameter = key.rpartition(".")
        plain = StoredSources({each: stored[each] for each in key_map[key]}, keep_narrow)
        if quantization and owner in quantized and parameter == "weight":
            return quantization.sources(plain)
        return plain

    done = 0
    for (owner, own_dtype), keys in _by_owner(module, wanted, dtype).items():
        sources = {key.rpartition(".")[2]: sources_of(key) for key in keys}
        part = module.get_submodule(owner)
        if take := getattr(part, "take", None):
            take(sources, own_dtype, device)
        elif not _keep_library_layer(module, owner, sources, own_dtype, device):
            take_parameters(part, sources, own_dtype, device)
        done += sum(math.prod(wanted[key].shape) for key in keys)
        loaded(done / max(1, numbers))
    left = [
        key
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.is_meta
    ]
    assert not left, left


def _wanted(
    module: nn.Module, stored: Mapping[str, Stored], key_map: Mapping[str, tuple[str, ...]]
) -> dict[str, Tensor]:
    """The module's tensors that are to be set. Counters of training, which files may lack, stay as
    the class makes them."""
    return {
        key: tensor
        for key, tensor in module.state_dict().items()
        if tensor.is_floating_point() or stored.keys() >= set(key_map[key])
    }


def _by_owner(
    module: nn.Module, wanted: Mapping[str, Tensor], dtype: torch.dtype | None
) -> dict[tuple[str, torch.dtype], list[str]]:
    """Names of tensors that one module takes together, as they have one type."""
    exact = getattr(module, "keep_in_float32", ())
    groups: defaultdict[tuple[str, torch.dtype], list[str]] = defaultdict(list)
    for key, tensor in wanted.items():
        own = torch.float32 if _has_part(key, exact) else dtype or tensor.dtype
        groups[key.rpartition(".")[0], own].append(key)
    return groups


def _keep_library_layer(
    module: nn.Module,
    owner: str,
    sources: Mapping[str, Sources],
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Replace a library's layer by one that keeps its weight as it is stored. False if it is to
    be read as numbers."""
    layer: Any = module.get_submodule(owner)
    make = KEPT_LAYERS.get(type(layer).__name__)
    if make is None or "weight" not in sources:
        return False
    shape = layer.weight.shape
    if not (kept := sources["weight"].storages(shape, dtype, device)):
        return False
    bias = sources["bias"].read(shape[:1], dtype, device) if "bias" in sources else None
    module.set_submodule(owner, make(layer, KeptWeight(kept, dtype), bias))
    return True


def _has_part(key: str, parts: Sequence[str]) -> bool:
    return any(part in parts for part in key.split("."))


def _check(
    wanted: Mapping[str, Tensor],
    key_map: Mapping[str, tuple[str, ...]],
    stored: Mapping[str, Stored],
    name: str,
) -> None:
    sources = [source for key in wanted for source in key_map[key]]
    floating = [
        source
        for key, tensor in wanted.items()
        if tensor.is_floating_point()
        for source in key_map[key]
    ]
    missing = [source for source in sources if source not in stored]
    unexpected = sorted(stored.keys() - set(sources))
    misshapen = [] if missing else _misshapen(wanted, key_map, stored)
    found = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("wrong shape", misshapen),
        ("not floating point (quantised?)", [] if missing else _not_floating(floating, stored)),
    )
    complaints = [f"{what}: {_listed(keys)}" for what, keys in found if keys]
    if complaints:
        raise InvalidCheckpoint(
            f"{name}: the weights don't match config.json: " + "; ".join(complaints)
        )


def _misshapen(
    wanted: Mapping[str, Tensor],
    key_map: Mapping[str, tuple[str, ...]],
    stored: Mapping[str, Stored],
) -> list[str]:
    found = []
    for key, tensor in wanted.items():
        shapes = {source: stored[source].shape for source in key_map[key]}
        if not _fit(list(shapes.values()), tuple(tensor.shape)):
            listed = ", ".join(f"{source} {list(shape)}" for source, shape in shapes.items())
            found.append(f"{listed} (expected {list(tensor.shape)} in total)")
    return found


def _fit(shapes: Sequence[tuple[int, ...]], wanted: tuple[int, ...]) -> bool:
    """True if tensors of these shapes make up `wanted`. GGUF may lack leading dimensions of 1."""
    if len(shapes) == 1:
        return _trimmed(shapes[0]) == _trimmed(wanted)
    whole = [(1,) * (len(wanted) - len(shape)) + shape for shape in shapes]
    tails = {shape[1:] for shape in whole}
    return tails == {wanted[1:]} and sum(shape[0] for shape in whole) == wanted[0]


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def _not_floating(sources: Sequence[str], stored: Mapping[str, Stored]) -> list[str]:
    dtypes = {source: stored[source].dtype for source in sources}
    return [f"{source} {dtype}" for source, dtype in dtypes.items() if not is_float(dtype)]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
