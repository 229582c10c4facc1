"""Reads components from a single weight file, under diffusers' names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.single_file import DENOISER, Recognised, recognise
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.single_file.conversion import convert
from multimodal_gen.runtime.loader.single_file.converters import converter_for
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors
from multimodal_gen.runtime.loader.tensors.stored import Stored

log = logging.getLogger(__name__)
_LEFTOVERS = ("logit_scale", "position_ids", "text_projection")
"""Left over from training, and from how CLIP used to be saved."""
_EXPERTS = (("high", ""), ("low", "_2"))
_SHOWN = 8


@dataclass(frozen=True)
class SingleFileWeights:
    """A recognised file, and which of a base checkpoint's components it contains."""

    found: Recognised
    parts: Mapping[str, str]
    """Component -> part of the file."""

    @classmethod
    def open(
        cls, path: Path, components: Mapping[str, tuple[str, str]], base: str
    ) -> SingleFileWeights:
        """Open a file. `components` are the base's, with library and class. Raises
        InvalidCheckpoint."""
        found = recognise(path)
        held = found.parts().keys()
        parts = {name: name for name in components if name in held}
        return cls(found, {_denoiser(found, components, base): DENOISER} | parts)

    def called(self, name: str) -> str:
        """Name of a component in errors; mentions the file if it is in there."""
        return f"{name} in {self.found.header.path.name}" if name in self.parts else name

    @contextmanager
    def tensors(
        self, name: str, class_name: str, config: Mapping[str, Any]
    ) -> Iterator[dict[str, Stored]]:
        """Yield a component's tensors, while the file is open. Raises InvalidCheckpoint."""
        part = self.parts[name]
        with self._open() as stored:
            own = {}
            for key, tensor in stored.items():
                owner, own_key = self.found.place(key)
                if owner == part:
                    own[own_key] = tensor
            if part == DENOISER and self.found.layout.style == "diffusers":
                yield own
                return
            what = self.called(name)
            own, unused = convert(own, converter_for(class_name, config), what)
            if unused and part == DENOISER:
                raise InvalidCheckpoint(f"{what}: unexpected: {', '.join(unused[:_SHOWN])}")
            unused = [key for key in unused if not key.endswith(_LEFTOVERS)]
            if unused:
                log.warning("%s: unused weights: %s", what, unused[:_SHOWN])
            yield own

    @contextmanager
    def _open(self) -> Iterator[dict[str, Stored]]:
        header = self.found.header
        if header.format == "gguf":
            yield gguf_tensors(header)
            return
        with open_weights([header.path], str(header.path.parent)) as stored:
            yield stored


def _denoiser(found: Recognised, components: Mapping[str, tuple[str, str]], base: str) -> str:
    """The base's component that the file's denoiser replaces."""
    path, wanted = found.header.path, found.layout.denoiser
    names = [name for name, (_, class_name) in components.items() if class_name == wanted]
    if not names:
        others = ", ".join(class_name for _, class_name in components.values())
        raise InvalidCheckpoint(
            f"{path.name} has a {wanted} ({found.family.title}), which {base} does not use: "
            f"its components are {others}. Give another --base-model-path"
        )
    if len(names) == 1:
        return names[0]
    told = [
        name
        for mark, suffix in _EXPERTS
        for name in names
        if mark in path.name.lower() and name == f"transformer{suffix}"
    ]
    if len(told) != 1:
        raise InvalidCheckpoint(
            f"{path.name}: {base} has {len(names)} of {wanted} ({', '.join(names)}); the file's "
            "name must say which one it is: high (noise, the first) or low (noise, the second)"
        )
    return told[0]
