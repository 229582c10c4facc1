"""Tensors of safetensors files, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.stored import Stored


@dataclass(frozen=True, eq=False)
class SafetensorsTensor:
    file: Any
    key: str
    shape: tuple[int, ...]
    dtype: str
    computed = False

    def rows(self, start: int, stop: int) -> Tensor:
        whole: Tensor = self.file.get_tensor(self.key)
        if not self.shape:
            return whole.reshape(1)
        return whole if (start, stop) == (0, self.shape[0]) else whole[start:stop]


@contextmanager
def open_safetensors(files: Sequence[Path], name: str) -> Iterator[dict[str, Stored]]:
    """Yield the tensors of all files, while they are open; `name` is the component in errors.

    Tensors that were read stay valid afterwards. Raises InvalidCheckpoint.
    """
    with ExitStack() as stack:
        stored: dict[str, Stored] = {}
        for path in files:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise InvalidCheckpoint(f"{name}/{path.name}: {error}") from error
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                stored[key] = SafetensorsTensor(
                    file, key, tuple(part.get_shape()), part.get_dtype()
                )
        yield stored
