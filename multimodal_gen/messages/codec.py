"""Encodes messages as ZeroMQ frames and back: a msgpack header, then raw arrays; no pickle.

A message that carries arrays describes them in its field `frames`. The bytes of each follow in one
or more frames, without a copy; they are interpreted only once dtype, shape and size agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from multimodal_gen.errors import InvalidRequest, ProtocolError

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 4 * 2**20
MAX_CLIENT_FRAME_BYTES = 64 * 2**20
"""Maximum size of a frame from a client; the socket disconnects clients that exceed it."""
MAX_FRAME_BYTES = 4 * 2**30
PIECE_BYTES = 4 * 2**20
"""Maximum size of the frames that an array is sent in: heartbeats pass between two frames, so a
large array on a slow link must not be one."""


class FrameHeader(msgspec.Struct, frozen=True):
    """Shape and dtype of the array in one frame."""

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"] = "uint8"
    """Pixels are uint8, sound is float32."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]

    @property
    def pieces(self) -> int:
        """Number of frames that the array is sent in."""
        return max(1, -(-self.nbytes // PIECE_BYTES))


Buffer = bytes | memoryview
_ITEM_BYTES = {"uint8": 1, "float32": 4}
_encoder = msgspec.msgpack.Encoder()


def header_of(array: np.ndarray[Any, Any]) -> FrameHeader:
    """Header for a uint8 or float32 array."""
    return FrameHeader(array.shape, "float32" if array.dtype == "float32" else "uint8")


def encode(message: msgspec.Struct, arrays: Sequence[np.ndarray[Any, Any]] = ()) -> list[Buffer]:
    """Encode a message as frames. `arrays` are C-contiguous and described by its `frames` field."""
    return forward(message, (_pieces(array.data.cast("B")) for array in arrays))


def forward(message: msgspec.Struct, bodies: Iterable[Iterable[Any]]) -> list[Any]:
    """Encode a message whose arrays are already frames, such as those that arrived."""
    return [_encoder.encode(message), *chain.from_iterable(bodies)]


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[at : at + PIECE_BYTES] for at in range(0, max(1, len(data)), PIECE_BYTES))


class Decoder:
    """Decodes the messages of one union type; raises ProtocolError for any other bytes."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)

    def decode(self, frames: Sequence[Buffer]) -> tuple[Any, list[np.ndarray[Any, Any]]]:
        """Return the message and its arrays: views of the frames, unless they came in pieces.

        Raises as `split`.
        """
        message, bodies = self.split(frames)
        headers = getattr(message, "frames", ())
        return message, [_array(*each) for each in zip(headers, bodies, strict=True)]

    def split(self, frames: Sequence[Any]) -> tuple[Any, list[list[Any]]]:
        """Return the message and, for each of its arrays, the frames as they came: buffers of any
        kind that have a length.

        Raises InvalidRequest when a field that a user filled in has a disallowed value,
        ProtocolError for anything else that is not a complete message of this protocol.
        """
        if not frames or len(frames[0]) > MAX_HEADER_BYTES:
            raise ProtocolError(f"header frame missing or over {MAX_HEADER_BYTES} bytes")
        try:
            message = self._decoder.decode(memoryview(frames[0]))
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, InvalidRequest):
                raise error.__cause__ from None
            raise ProtocolError(f"not a message of this protocol: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"not msgpack: {error}") from None
        return message, _bodies(getattr(message, "frames", ()), frames[1:])


def _bodies(headers: Sequence[FrameHeader], frames: Sequence[Any]) -> list[list[Any]]:
    for header in headers:
        if min(header.shape, default=0) < 0 or header.nbytes > MAX_FRAME_BYTES:
            raise ProtocolError(f"frame of shape {header.shape} is not allowed")
    announced = sum(header.pieces for header in headers)
    if announced != len(frames):
        raise ProtocolError(f"{announced} frames announced, {len(frames)} sent")
    arriving = iter(frames)
    bodies = [list(islice(arriving, header.pieces)) for header in headers]
    for header, body in zip(headers, bodies, strict=True):
        if header.nbytes != (sent := sum(map(len, body))):
            raise ProtocolError(f"frame of shape {header.shape} has {sent} bytes")
    return bodies


def _array(header: FrameHeader, body: Sequence[Buffer]) -> np.ndarray[Any, Any]:
    import numpy as np

    pieces = [np.frombuffer(piece, dtype=np.uint8) for piece in body]
    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return whole.view(header.dtype).reshape(header.shape)
