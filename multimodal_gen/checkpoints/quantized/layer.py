"""A layer whose weight consists of several tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

FORMS: Mapping[str, int] = {
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "mxfp8": 1,
    "nvfp4": 2,
    "int8": 1,
    "int8-ConvRot": 1,
    "int8_blockwise": 1,
    "int4": 2,
    "intx": 1,
    "nf4": 2,
    "fp4": 2,
    "scaled": 1,
}
"""Forms that can be read, with the number of weights in each number that is stored."""
WEIGHTS = ("weight", "weight_packed")
SCALES = ("weight_scale", "scale_weight", "weight_scale_inv")
"""Names of scales of weights; the second is ComfyUI's older one."""
_MAX_NOTE_BYTES = 1 << 14


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer with a quantised weight."""

    name: str
    """Name of its tensors in the file, without the last part."""
    form: str
    tensors: Mapping[str, TensorInfo]
    """Tensors of the weight: weight, weight_scale …"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Notes of the file about it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of those tensors in the file that are not called NAME.PART."""
    noted_shape: tuple[int, ...] | None = None
    """Shape of the weight, where the file tells it."""

    @property
    def weight(self) -> TensorInfo:
        """Its numbers as stored."""
        return next(self.tensors[part] for part in WEIGHTS if part in self.tensors)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight after unpacking, without the padding that a converter notes."""
        if self.noted_shape is not None:
            return self.noted_shape
        *rows, columns = self.weight.shape or (1,)
        whole = (*rows, columns * FORMS[self.form])
        own = self.settings.get("orig_shape")
        return tuple(own) if isinstance(own, list) and _is_part(own, whole) else whole

    @property
    def info(self) -> TensorInfo:
        """All of it as one tensor whose type is the form."""
        size = sum(info.size for info in self.tensors.values())
        return TensorInfo(self.form, self.shape, self.weight.start, size)

    def name_of(self, part: str) -> str:
        """Name of one of its tensors in the file."""
        return self.names.get(part, f"{self.name}.{part}")


def _is_part(own: list[Any], whole: tuple[int, ...]) -> bool:
    """True for a shape that becomes `whole` if it is padded to multiples of 32 or 16."""
    return (
        len(own) == len(whole) == 2
        and all(isinstance(size, int) for size in own)
        and all(0 <= all_ - size < 32 for size, all_ in zip(own, whole, strict=True))
    )


def note_in(header: Header, name: str, info: TensorInfo) -> dict[str, Any]:
    """JSON in a small tensor of a file. Raises InvalidCheckpoint."""
    where = f"{header.path.name}: {name:.100}"
    if info.dtype not in ("U8", "I8") or info.size > _MAX_NOTE_BYTES:
        raise InvalidCheckpoint(
            f"{where}: {info.dtype} of {info.size} bytes must be JSON in U8 of at most "
            f"{_MAX_NOTE_BYTES} bytes"
        )
    with header.path.open("rb") as file:
        file.seek(info.start)
        content = file.read(info.size)
    return decoded(content, where)


def decoded(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidCheckpoint that begins with `where`."""
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidCheckpoint(f"{where}: not valid JSON: {error}") from error
