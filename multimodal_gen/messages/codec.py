"""Encodes messages as ZeroMQ frames and back: a msgpack header, then raw pixels; no pickle.

A message that carries arrays describes them in its field `frames`. Each array follows as a frame of
its own, without a copy; it is interpreted only once dtype, shape and byte count agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from multimodal_gen.errors import InvalidRequest, ProtocolError

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 4 * 2**20
MAX_CLIENT_FRAME_BYTES = 64 * 2**20
"""Maximum size of a frame from a client; the socket disconnects clients that exceed it."""
MAX_FRAME_BYTES = 4 * 2**30


class FrameHeader(msgspec.Struct, frozen=True):
    """Shape and dtype of the array in one frame."""

    shape: tuple[int, ...]
    dtype: Literal["uint8"] = "uint8"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)


T = TypeVar("T")
Buffer = bytes | memoryview
_encoder = msgspec.msgpack.Encoder()


def header_of(array: np.ndarray[Any, Any]) -> FrameHeader:
    """Header for a uint8 array."""
    return FrameHeader(shape=array.shape)


def encode(message: msgspec.Struct, arrays: Sequence[np.ndarray[Any, Any]] = ()) -> list[Buffer]:
    """Encode a message as frames. `arrays` are C-contiguous and described by its `frames` field."""
    return [_encoder.encode(message), *(array.data.cast("B") for array in arrays)]


class Decoder:
    """Decodes the messages of one union type; raises ProtocolError for any other bytes."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)

    def decode(self, frames: Sequence[Buffer]) -> tuple[Any, list[np.ndarray[Any, Any]]]:
        """Return the message and its arrays (views of the frames).

        Raises InvalidRequest when a field that a user filled in has a disallowed value,
        ProtocolError for anything else that is not a complete message of this protocol.
        """
        if not frames or len(frames[0]) > MAX_HEADER_BYTES:
            raise ProtocolError(f"header frame missing or over {MAX_HEADER_BYTES} bytes")
        try:
            message = self._decoder.decode(frames[0])
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, InvalidRequest):
                raise error.__cause__ from None
            raise ProtocolError(f"not a message of this protocol: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"not msgpack: {error}") from None
        return message, _arrays(getattr(message, "frames", ()), frames[1:])


def _arrays(headers: Sequence[FrameHeader], frames: Sequence[Buffer]) -> list[Any]:
    if len(headers) != len(frames):
        raise ProtocolError(f"{len(headers)} frames announced, {len(frames)} sent")
    if not headers:
        return []
    import numpy as np

    arrays = []
    for header, frame in zip(headers, frames, strict=True):
        if min(header.shape, default=0) < 0 or header.nbytes > MAX_FRAME_BYTES:
            raise ProtocolError(f"frame of shape {header.shape} is not allowed")
        if header.nbytes != len(frame):
            raise ProtocolError(f"frame of shape {header.shape} has {len(frame)} bytes")
        arrays.append(np.frombuffer(frame, dtype=np.uint8).reshape(header.shape))
    return arrays
