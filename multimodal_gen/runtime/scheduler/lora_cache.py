"""Tracks the LoRAs that ranks hold, load and unload, and the requests that wait for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import LoraLoad, LoraRead
from multimodal_gen.messages.reply import WireError


class LoraVersion(NamedTuple):
    """A LoRA for one target at the current state of its files: changed files under the same name
    are a new version."""

    name: str
    stamp: str
    target: str | None


@dataclass
class _Entry:
    number: int
    unread: set[int]
    """Ranks that have not reported yet."""
    digest: str | None = None
    """Of what ranks have read."""
    warnings: tuple[str, ...] = ()
    """About the file; all ranks read the same."""
    error: WireError | None = None
    users: set[str] = field(default_factory=set)
    """Queued or running requests that use it, or will once it is loaded."""


class LoraCache:
    """Holds LoRAs in use, and the most recently used ones up to `capacity`.

    It decides what the next plan loads and unloads, and counts that as done: ranks carry out plans
    in order. Its own order is by use, least recent first.
    """

    def __init__(self, folder: str | None, capacity: int, ranks: int) -> None:
        self._folder = LoraFolder(Path(folder)) if folder is not None else None
        self._capacity = capacity
        self._ranks = ranks
        self._entries: dict[LoraVersion, _Entry] = {}
        self._waiting: dict[str, tuple[LoraVersion, ...]] = {}
        """Requests that wait for space or for LoRAs being read, in order."""
        self._held: dict[str, tuple[LoraVersion, ...]] = {}
        """Requests whose LoRAs have their space assigned."""
        self._numbers = itertools.count()
        self._load: list[LoraLoad] = []
        self._unload: list[int] = []

    def find(self, choices: Sequence[LoraChoice]) -> tuple[LoraVersion, ...]:
        """Resolve names to the current versions on disk. Raises InvalidRequest."""
        if choices and self._folder is None:
            raise InvalidRequest("lora", choices[0].name, "the server was started without lora_dir")
        return tuple(self._version(choice) for choice in choices)

    def _version(self, choice: LoraChoice) -> LoraVersion:
        assert self._folder is not None
        try:
            return LoraVersion(choice.name, self._folder.find(choice.name).stamp, choice.target)
        except OSError as error:
            allowed = f"can't be read: {error.strerror}"
            raise InvalidRequest("lora", choice.name, allowed) from error

    # -- requests

    def wait(self, request_id: str, versions: tuple[LoraVersion, ...]) -> None:
        """Let the request wait for its LoRAs."""
        self._waiting[request_id] = versions
        self._give_places()

    def leave(self, request_id: str) -> None:
        """Release the LoRAs of a request that has ended; no effect if it has none."""
        self._waiting.pop(request_id, None)
        for version in self._held.pop(request_id, ()):
            self._entries[version].users.discard(request_id)

    def take_ready(self) -> list[str]:
        """Remove and return the waiting requests whose LoRAs all ranks have read."""
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
        """Load numbers of a ready request, in the order of its `params.lora`."""
        return tuple(self._entries[version].number for version in self._held.get(request_id, ()))

    def warnings(self, request_id: str) -> list[str]:
        """Warnings about the LoRAs of a ready request."""
        versions = self._held.get(request_id, ())
        found = (warning for version in versions for warning in self._entries[version].warnings)
        return [*dict.fromkeys(found)]

    # -- ranks

    def orders(self) -> tuple[tuple[int, ...], tuple[LoraLoad, ...]]:
        """Unload and load orders for the next plan, which must be sent."""
        orders = tuple(self._unload), tuple(self._load)
        self._unload.clear()
        self._load.clear()
        return orders

    @property
    def has_orders(self) -> bool:
        return bool(self._load or self._unload)

    def reported(self, read: LoraRead) -> dict[str, WireError]:
        """Record that a rank has read a LoRA or failed to. Returns the requests that fail, with
        errors."""
        version, entry = next(
            (version, entry)
            for version, entry in self._entries.items()
            if entry.number == read.number
        )
        entry.unread.discard(read.rank)
        entry.error = entry.error or read.error or _differing(version, entry, read)
        entry.digest = read.digest
        entry.warnings = entry.warnings or read.warnings
        if entry.unread or entry.error is None:
            return {}
        self._remove(version)
        for request_id in entry.users:
            self._held[request_id] = tuple(v for v in self._held[request_id] if v != version)
            self._waiting.pop(request_id, None)
        return dict.fromkeys(sorted(entry.users), entry.error)

    # -- places

    def _give_places(self) -> None:
        """Assign space in the order of arrival, so that no request waits forever."""
        for request_id, versions in self._waiting.items():
            if request_id not in self._held and not self._hold(request_id, versions):
                break

    def _hold(self, request_id: str, versions: tuple[LoraVersion, ...]) -> bool:
        """Assign space for all of a request's LoRAs, or none."""
        new = {version for version in versions if version not in self._entries}
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
            load = LoraLoad(number=entry.number, name=version.name, target=version.target)
            self._load.append(load)
        entry.users.add(request_id)
        self._entries[version] = entry

    def _remove(self, version: LoraVersion) -> None:
        self._unload.append(self._entries.pop(version).number)


def _differing(version: LoraVersion, entry: _Entry, read: LoraRead) -> WireError | None:
    """Error if ranks, perhaps on several hosts, have read different files."""
    if entry.digest in (None, read.digest):
        return None
    what = "is not the same file for all ranks: their hosts need equal folders"
    return WireError.of(InvalidRequest("lora", version.name, what))
