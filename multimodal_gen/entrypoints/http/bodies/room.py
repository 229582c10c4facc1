"""Memory that the requests of all clients share: bodies, and decoded images."""

from __future__ import annotations

import threading
from collections import Counter

from multimodal_gen.entrypoints.python.decoding import DECODING_BYTES
from multimodal_gen.errors import QueueFull

SMALL = 256 * 2**10
"""Bytes up to which a request can use all of the room."""
_FOR_SMALL = 8
"""One part of so many is left to small requests."""
_BODIES = 8
"""Maximum number of bodies of the largest size in memory at once."""
_PIXEL_BYTES = 32
"""Memory for all input images, in bytes per pixel of the largest one allowed."""


class Room:
    """Bytes that requests hold, limited in sum and per owner. Thread-safe."""

    def __init__(self, capacity: int, share: int, what: str) -> None:
        """`share`: maximum of one owner; `what` fills the room, for the error."""
        self._capacity = capacity
        self._share = share
        self._what = what
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held at present."""
        return self._held.total()

    def take(self, owner: str, size: int, *, large: bool) -> None:
        """Raises QueueFull if there is no room. `large` takers leave some of it to others."""
        capacity = self._capacity - (self._capacity // _FOR_SMALL if large else 0)
        with self._lock:
            mine, all_held = self._held[owner] + size, self._held.total() + size
            if mine > self._share or all_held > capacity:
                raise QueueFull(f"too many {self._what} in flight; retry later")
            self._held[owner] = mine

    def give(self, owner: str, size: int) -> None:
        """Return what was taken."""
        with self._lock:
            self._held[owner] -= size
            if not self._held[owner]:
                del self._held[owner]


class Hold:
    """One request's share of a room. Thread-safe."""

    def __init__(self, room: Room, owner: str) -> None:
        self._room = room
        self._owner = owner
        self._size = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Raises QueueFull if there is no room."""
        with self._lock:
            if not self._closed:  # a thread may still work for a request that was cancelled
                large = self._size + size > SMALL
                self._room.take(self._owner, size, large=large)
                self._size += size

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            self._closed = True
            self._room.give(self._owner, self._size)


def body_room(max_body_bytes: int, *, several_owners: bool) -> Room:
    """Room for the bodies of all requests; of several owners, none gets more than half."""
    capacity = _BODIES * max_body_bytes
    return Room(capacity, capacity // 2 if several_owners else capacity, "large request bodies")


def picture_room(max_input_pixels: int, *, several_owners: bool) -> Room:
    """Room for the input images of all requests, while they are decoded and afterwards; of several
    owners, none gets more than what decoding one of the largest needs."""
    capacity = _PIXEL_BYTES * max_input_pixels
    share = DECODING_BYTES * max_input_pixels if several_owners else capacity
    return Room(capacity, share, "large input images")
