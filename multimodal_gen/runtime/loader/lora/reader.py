"""Reads a LoRA and maps it to the modules of a pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.checkpoints.adapter_folder import AdapterFile
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.lora.folder import about_of
from multimodal_gen.configs.lora.contracts import contract_of
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.layers.lora import Lora
from multimodal_gen.runtime.layers.lora_terms import Term
from multimodal_gen.runtime.loader.lora.adapter_config import adapter_config, alpha_in, configs_in
from multimodal_gen.runtime.loader.lora.by_head import by_head, is_by_head
from multimodal_gen.runtime.loader.lora.experts import for_expert
from multimodal_gen.runtime.loader.lora.keys import other_form
from multimodal_gen.runtime.loader.lora.names import LoraPlace, Names
from multimodal_gen.runtime.loader.lora.pairs import Pair, SortedFile, scaled_by, sort_file
from multimodal_gen.runtime.loader.lora.targets import (
    Target,
    joined,
    misfit,
    targets_in,
    terms_of,
)
from multimodal_gen.runtime.loader.original.names import original_names
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.loader.tensors.safetensors_copy import copy_safetensors

_MAX_BYTES = 8 << 30
_SHOWN, _LONGEST, _MOST = 8, 300, 4000
"""Keys in a message, and characters of a key and of a message."""
_NO_MODULE = "this model has no such modules"
_NO_INPUT = "this model has other inputs there"
_NO_WEIGHTS = "there are no low-rank weights beside it"


class LoraReader:
    """Reads LoRAs for the modules of one pipeline; thread-safe."""

    def __init__(
        self, modules: Mapping[str, nn.Module], class_name: str, device: torch.device
    ) -> None:
        """`modules`: components that support LoRA, by name, the denoiser first; `class_name` is its
        class in diffusers."""
        self._denoisers = [name for name in modules if not name.startswith("text_encoder")]
        self._targets = {name: dict(targets_in(module)) for name, module in modules.items()}
        own = self._targets[self._denoisers[0]]
        self._originals = original_names(class_name, own)
        self._names = Names(self._targets, self._originals)
        self._device = device

    def read(self, file: AdapterFile, target: str | None = None) -> Lora:
        """Read a LoRA, or only what is for component `target`.

        Raises InvalidRequest, which says what is wrong or does not match.
        """
        try:
            with complaints(file.weights.name):
                return self._read(file, target)
        except InvalidCheckpoint as error:
            raise InvalidRequest("lora", file.name, _plain(error.message)[:_MOST]) from error

    def _read(self, file: AdapterFile, target: str | None) -> Lora:
        tensors, metadata = _load(file.weights)
        if (other := other_form(tensors)) is not None:
            what, keys = other
            raise InvalidCheckpoint(f"has {what}, which is not supported: {_listed(keys)}")
        found = sort_file(tensors, self._names, target)
        if is_by_head(tensors):
            found.pairs = by_head(found.pairs, self._originals.norms, self._targets)
        configs = self._configs(file, tensors, metadata)
        unmatched = scaled_by(found.pairs, configs)
        _check_norms(found, configs)
        said = f"{file.name}/{file.weights.name}"
        found.pairs, warnings = for_expert(found.pairs, self._denoisers, target, said)
        self._set_aside(found)
        self._check(found, tensors)
        if not found.pairs and target is None:
            idle = "".join(f"; {each}" for each in _idle_warnings(found.idle))
            raise InvalidCheckpoint(f"has no weights{' for this model' if idle else ''}{idle}")
        warnings += [*_contract(file), *_idle_warnings(found.idle)]
        if unmatched:
            warnings.append(
                f"alpha_pattern: {_listed([*map(repr, unmatched)])}: without effect, as not found"
            )
        return self._fitted(found.pairs, tuple(f"lora={file.name!r}: {each}" for each in warnings))

    def _configs(
        self, file: AdapterFile, keys: Collection[str], metadata: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """PEFT's config of each component, or what the metadata have in place of it."""
        config, of_each = adapter_config(file.config), configs_in(metadata)
        if not config and not of_each and not any(key.endswith(".alpha") for key in keys):
            config = alpha_in(metadata, self._originals.alpha)
        return dict.fromkeys(self._targets, config) if config else of_each

    def _set_aside(self, found: SortedFile) -> None:
        """Move to `idle` what the model has no modules or inputs for, and alphas alone."""
        for place, pair in list(found.pairs.items()):
            idle = self._idle(place, pair)
            found.idle |= idle
            if len(idle) == len(pair.keys):
                del found.pairs[place]

    def _idle(self, place: LoraPlace, pair: Pair) -> dict[str, str]:
        """Keys of a module's part that have no effect on this model, and why."""
        if not self._targets[place.component].keys() >= set(place.modules):
            return dict.fromkeys(pair.keys, _NO_MODULE)
        varying = self._originals.varying
        if place.modules[0] in varying and misfit(pair, self._of(place)) is not None:
            return dict.fromkeys(pair.keys, _NO_INPUT)
        alphas = [] if pair.has_change else [key for key in pair.keys if key.endswith(".alpha")]
        return dict.fromkeys(alphas, _NO_WEIGHTS)

    def _check(self, found: SortedFile, tensors: Mapping[str, Tensor]) -> None:
        """Raise InvalidCheckpoint with all that does not match."""
        shown = [key for key in found.unknown if not key.endswith(".alpha")] or found.unknown
        problems = [f"{key} {list(tensors[key].shape)}: no such module" for key in sorted(shown)]
        problems += self._misfits(found.pairs)
        if problems:
            raise InvalidCheckpoint(f"does not match the model: {_listed(problems, '; ')}")

    def _misfits(self, pairs: Mapping[LoraPlace, Pair]) -> Iterator[str]:
        for place, pair in sorted(pairs.items(), key=lambda item: item[0]):
            if (problem := misfit(pair, self._of(place))) is not None:
                modules = " + ".join(place.modules)
                yield f"{place.component}.{modules}: {problem} (in {_listed(pair.keys)})"

    def _of(self, place: LoraPlace) -> list[Target]:
        known = self._targets[place.component]
        return joined([known[module] for module in place.modules])

    def _fitted(self, pairs: Mapping[LoraPlace, Pair], warnings: tuple[str, ...]) -> Lora:
        terms: defaultdict[nn.Module, list[Term]] = defaultdict(list)
        for place, pair in pairs.items():
            targets = self._of(place)
            for module, term in terms_of(pair, targets, place, self._device):
                terms[module].append(term)
        beside = any(place.component not in self._denoisers for place in pairs)
        return Lora(dict(terms), of_encoders=beside, warnings=warnings)


def _check_norms(found: SortedFile, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InvalidCheckpoint for a DoRA that has lost its norms."""
    for component, config in configs.items():
        pairs = [pair for place, pair in found.pairs.items() if place.component == component]
        lacking = [pair.name for pair in pairs if pair.has_change and "norms" not in pair.parts]
        if config.get("use_dora") and lacking:
            raise InvalidCheckpoint(f"use_dora: no lora_magnitude_vector for {_listed(lacking)}")


def _load(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Read tensors and metadata as a copy in memory, since operators may overwrite their files."""
    header = read_header(path)
    if header.format != "safetensors":
        raise InvalidCheckpoint(f"{path.name}: must be safetensors, is {header.format}")
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidCheckpoint(
            f"{path.name}: larger than {_MAX_BYTES >> 30} GiB; is it a checkpoint?"
        )
    return copy_safetensors(header), header.metadata


def _contract(file: AdapterFile) -> list[str]:
    """Settings that the LoRA was made for, which requests have by default."""
    contract = contract_of(file.name, *about_of(file).titles)
    if contract is None:
        return []
    return [f"was made for {contract}: used where a request leaves parameters open"]


def _idle_warnings(idle: Mapping[str, str]) -> list[str]:
    """One warning for each reason, with the keys."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for key, reason in idle.items():
        by_reason[reason].append(key)
    return [f"{_listed(keys)}: without effect, as {why}" for why, keys in by_reason.items()]


def _listed(items: list[str], between: str = ", ") -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return between.join(_plain(item[:_LONGEST]) for item in items[:_SHOWN]) + more


def _plain(text: str) -> str:
    """Escape what a terminal or a header would take for a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
