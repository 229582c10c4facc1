"""Which LoRAs the ranks have, are reading and shall forget, and who waits for one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multimodal_gen.checkpoints.lora_folder import LoraFolder
from multimodal_gen.configs.lora_choice import LoraChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import LoraLoad, LoraRead
from multimodal_gen.messages.reply import WireError


class LoraVersion(NamedTuple):
    """A LoRA as its files are now: when they change under the same name, it is another."""

    name: str
    stamp: str


@dataclass
class _Entry:
    number: int
    unread: set[int]
    """Ranks that have not reported."""
    error: WireError | None = None
    users: set[str] = field(default_factory=set)
    """Requests that are alive and use it, or will as soon as it is there."""


class LoraCache:
    """Holds LoRAs in use, and the most recently used ones up to `capacity` in all.

    It tells what the next plan shall load and unload, and takes that as done: ranks carry out plans
    in order. Its own order is that of use, the least recent first.
    """

    def __init__(self, folder: str | None, capacity: int, ranks: int) -> None:
        self._folder = LoraFolder(Path(folder)) if folder is not None else None
        self._capacity = capacity
        self._ranks = ranks
        self._entries: dict[LoraVersion, _Entry] = {}
        self._waiting: dict[str, tuple[LoraVersion, ...]] = {}
        """Requests for which there was no room yet, or whose LoRAs are being read; in order."""
        self._held: dict[str, tuple[LoraVersion, ...]] = {}
        """Requests whose LoRAs have their places."""
        self._numbers = itertools.count()
        self._load: list[LoraLoad] = []
        self._unload: list[int] = []

    def find(self, choices: Sequence[LoraChoice]) -> tuple[LoraVersion, ...]:
        """What these names stand for just now. Looks at the disk. Raises InvalidRequest."""
        if choices and self._folder is None:
            raise InvalidRequest("lora", choices[0].name, "the server was started without lora_dir")
        return tuple(self._version(choice.name) for choice in choices)

    def _version(self, name: str) -> LoraVersion:
        assert self._folder is not None
        try:
            return LoraVersion(name, self._folder.find(name).stamp)
        except OSError as error:
            allowed = f"can't be read: {error.strerror}"
            raise InvalidRequest("lora", name, allowed) from error

    # -- requests

    def wait(self, request_id: str, versions: tuple[LoraVersion, ...]) -> None:
        """The request waits for its LoRAs."""
        self._waiting[request_id] = versions
        self._give_places()

    def leave(self, request_id: str) -> None:
        """The request has ended; without effect on one that has no LoRAs."""
        self._waiting.pop(request_id, None)
        for version in self._held.pop(request_id, ()):
            self._entries[version].users.discard(request_id)

    def take_ready(self) -> list[str]:
        """Requests whose LoRAs all ranks have by now: they wait no more."""
        self._give_places()
        ready = [
            request_id
            for request_id, versions in self._waiting.items()
            if request_id in self._held and not any(self._entries[v].unread for v in versions)
        ]
        for request_id in ready:
            del self._waiting[request_id]
        return ready

    def numbers(self, request_id: str) -> tuple[int, ...]:
        """Which loads a request that is ready uses, in the order of its `params.lora`."""
        return tuple(self._entries[version].number for version in self._held.get(request_id, ()))

    # -- ranks

    def orders(self) -> tuple[tuple[int, ...], tuple[LoraLoad, ...]]:
        """What the next plan unloads and loads; it must be sent."""
        orders = tuple(self._unload), tuple(self._load)
        self._unload.clear()
        self._load.clear()
        return orders

    @property
    def has_orders(self) -> bool:
        return bool(self._load or self._unload)

    def reported(self, read: LoraRead) -> dict[str, WireError]:
        """A rank has read one, or failed to: whose request ends with that, and how."""
        version, entry = next(
            (version, entry)
            for version, entry in self._entries.items()
            if entry.number == read.number
        )
        entry.unread.discard(read.rank)
        entry.error = entry.error or read.error
        if entry.unread or entry.error is None:
            return {}
        self._remove(version)
        for request_id in entry.users:
            self._held[request_id] = tuple(v for v in self._held[request_id] if v != version)
            self._waiting.pop(request_id, None)
        return dict.fromkeys(sorted(entry.users), entry.error)

    # -- places

    def _give_places(self) -> None:
        """In the order of arrival, so that nobody waits for room for ever."""
        for request_id, versions in self._waiting.items():
            if request_id not in self._held and not self._hold(request_id, versions):
                break

    def _hold(self, request_id: str, versions: tuple[LoraVersion, ...]) -> bool:
        """Give all of a request's LoRAs their places, or none."""
        new = [version for version in versions if version not in self._entries]
        idle = [
            version
            for version, entry in self._entries.items()
            if not entry.users and not entry.unread and version not in versions
        ]
        excess = max(0, len(self._entries) + len(new) - self._capacity)
        if excess > len(idle):
            return False
        for version in idle[:excess]:
            self._remove(version)
        for version in versions:
            self._use(version, request_id)
        self._held[request_id] = versions
        return True

    def _use(self, version: LoraVersion, request_id: str) -> None:
        entry = self._entries.pop(version, None)
        if entry is None:
            entry = _Entry(next(self._numbers), set(range(self._ranks)))
            self._load.append(LoraLoad(number=entry.number, name=version.name, stamp=version.stamp))
        entry.users.add(request_id)
        self._entries[version] = entry

    def _remove(self, version: LoraVersion) -> None:
        self._unload.append(self._entries.pop(version).number)
