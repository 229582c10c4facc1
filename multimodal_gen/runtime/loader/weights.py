"""Fills a module that was made on the meta device from memory-mapped safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from multimodal_gen.errors import InvalidCheckpoint

_SHOWN = 8
"""Names listed of each kind of mistake."""


class Piece(NamedTuple):
    """Which rows of a module's tensor came from one tensor of the checkpoint."""

    name: str
    start: int
    rows: int


def pieces_of(module: nn.Module) -> Mapping[str, Sequence[Piece]]:
    """What each tensor of a module that was filled here is made of; empty for others."""
    pieces: Mapping[str, Sequence[Piece]] = module.__dict__.get("_pieces", {})
    return pieces


def fill(
    module: nn.Module,
    files: Sequence[Path],
    key_map: Mapping[str, tuple[str, ...]],
    *,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Give every tensor of `module` its weights, in `dtype` on `device`.

    `key_map` names the checkpoint's tensors that make up each of the module's, concatenated along
    dim 0. On a CPU, a tensor that is stored in `dtype` stays in the file's pages. Raises
    InvalidCheckpoint that lists what is missing, unexpected or of the wrong shape; `name` is the
    component's.

    A module's class may say `keep_in_float32`, parts of its tensors' names that are not cast to
    `dtype`, and `ignored`, parts of names in a checkpoint that it has no use for.
    """
    with ExitStack() as stack:
        ignored = getattr(module, "ignored", ())
        stored = {
            key: file
            for key, file in _open(files, stack, name).items()
            if not _has_part(key, ignored)
        }
        exact = getattr(module, "keep_in_float32", ())
        wanted = module.state_dict()
        _check(wanted, key_map, stored, name)
        pieces = {key: _pieces(key_map[key], stored) for key in wanted}
        state = {
            key: _assemble(
                [stored[source] for source in key_map[key]],
                meta,
                key_map[key],
                torch.float32 if _has_part(key, exact) else dtype,
                device,
            )
            for key, meta in wanted.items()
        }
    module.load_state_dict(state, strict=True, assign=True)
    object.__setattr__(module, "_pieces", pieces)
    left = [
        key
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.is_meta
    ]
    assert not left, left


def _has_part(key: str, parts: Sequence[str]) -> bool:
    return any(part in parts for part in key.split("."))


def _open(files: Sequence[Path], stack: ExitStack, name: str) -> dict[str, Any]:
    """The open file of each stored tensor."""
    stored: dict[str, Any] = {}
    for path in files:
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise InvalidCheckpoint(f"{name}/{path.name}: {error}") from error
        stored |= dict.fromkeys(file.keys(), file)
    return stored


def _check(
    wanted: Mapping[str, Tensor],
    key_map: Mapping[str, tuple[str, ...]],
    stored: Mapping[str, Any],
    name: str,
) -> None:
    sources = [source for key in wanted for source in key_map[key]]
    missing = [source for source in sources if source not in stored]
    unexpected = sorted(stored.keys() - set(sources))
    misshapen = [] if missing else _misshapen(wanted, key_map, stored)
    found = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("wrong shape", misshapen),
        ("not floating point (quantised?)", [] if missing else _not_floating(sources, stored)),
    )
    complaints = [f"{what}: {_listed(keys)}" for what, keys in found if keys]
    if complaints:
        raise InvalidCheckpoint(
            f"{name}: the weights don't fit config.json: " + "; ".join(complaints)
        )


def _misshapen(
    wanted: Mapping[str, Tensor], key_map: Mapping[str, tuple[str, ...]], stored: Mapping[str, Any]
) -> list[str]:
    found = []
    for key, tensor in wanted.items():
        shapes = {source: stored[source].get_slice(source).get_shape() for source in key_map[key]}
        rows = sum(shape[0] if shape else 1 for shape in shapes.values())
        tails = [shape[1:] for shape in shapes.values()]
        if [rows, *tails[0]] != list(tensor.shape) or any(tail != tails[0] for tail in tails):
            listed = ", ".join(f"{source} {shape}" for source, shape in shapes.items())
            found.append(f"{listed} (together {list(tensor.shape)} wanted)")
    return found


def _not_floating(sources: Sequence[str], stored: Mapping[str, Any]) -> list[str]:
    dtypes = {source: stored[source].get_slice(source).get_dtype() for source in sources}
    return [f"{source} {dtype}" for source, dtype in dtypes.items() if "F" not in dtype]


def _pieces(sources: Sequence[str], stored: Mapping[str, Any]) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for source in sources:
        shape = stored[source].get_slice(source).get_shape()
        pieces.append(Piece(source, at, shape[0] if shape else 1))
        at += pieces[-1].rows
    return pieces


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _assemble(
    files: Sequence[Any],
    meta: Tensor,
    sources: tuple[str, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One tensor of the module; cast part by part, so that no second copy of it is ever held."""
    if len(sources) == 1:
        whole: Tensor = files[0].get_tensor(sources[0]).to(device, dtype)
        return whole
    joined = torch.empty(meta.shape, dtype=dtype, device=device)
    at = 0
    for file, source in zip(files, sources, strict=True):
        part = file.get_tensor(source)
        joined[at : at + len(part)].copy_(part)
        at += len(part)
    return joined
