"""Reads one component from a weight file, under diffusers' or transformers' names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from multimodal_gen.checkpoints.file_parts import FilePart, listed
from multimodal_gen.checkpoints.prediction import scheduler_settings
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.original.encoders.llama_cpp import (
    is_llama_cpp,
    transformers_tensors,
)
from multimodal_gen.runtime.loader.original.encoders.llama_cpp_vision import vision_tensors
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.single_file.conversion import convert
from multimodal_gen.runtime.loader.single_file.converters import converter_for
from multimodal_gen.runtime.loader.single_file.own_config import with_own_config
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors
from multimodal_gen.runtime.loader.tensors.stored import Stored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComponentWeights:
    """The weights of one component, in a file."""

    name: str
    """The component's name in the checkpoint."""
    header: Header
    part: FilePart

    @property
    def called(self) -> str:
        """Name of the component in errors."""
        return f"{self.name} in {self.header.path.name}"

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(self.header.tensors[name].size for name in self.part.names.values())

    @property
    def scheduler_settings(self) -> dict[str, object]:
        """Settings of the scheduler that a denoiser's file states."""
        return scheduler_settings(self.header) if self.part.is_denoiser else {}

    def config(self, class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config of a folder's component, with what differs in the file's. Raises
        InvalidCheckpoint."""
        return with_own_config(class_name, config, self.header, self.part)

    @contextmanager
    def tensors(self, class_name: str, config: Mapping[str, Any]) -> Iterator[dict[str, Stored]]:
        """Yield its tensors, while the file is open. Raises InvalidCheckpoint."""
        with self._open() as stored:
            own = {key: stored[name] for key, name in self.part.names.items()}
            if self.part.converted:
                yield own
                return
            if is_llama_cpp(own):
                own = transformers_tensors(own, class_name, config, self.called)
                if class_name.startswith("Qwen2_5_VL"):
                    own |= vision_tensors(self.header.path)
            own, unused = convert(own, converter_for(class_name, config), self.called)
            if unused and self.part.is_denoiser:
                raise InvalidCheckpoint(f"{self.called}: unexpected: {listed(unused)}")
            if unused:
                log.warning("%s: not used: %s", self.called, listed(unused))
            yield own

    @contextmanager
    def _open(self) -> Iterator[dict[str, Stored]]:
        if self.header.format == "gguf":
            yield gguf_tensors(self.header)
            return
        path = self.header.path
        with open_weights([path], str(path.parent)) as stored:
            yield stored
