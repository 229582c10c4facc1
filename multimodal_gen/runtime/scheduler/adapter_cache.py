"""Tracks the LoRAs and controls that ranks hold, load and unload, and the requests that wait for
them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder
from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import AdapterKind, AdapterLoad, AdapterRead
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request_warning import RequestWarning

_FOLDERS: Mapping[AdapterKind, type[AdapterFolder]] = {
    "lora": LoraFolder,
    "control": ControlFolder,
}


class AdapterVersion(NamedTuple):
    """A LoRA for one target, or a control, at the current state of its files: changed files under
    the same name are a new version."""

    kind: AdapterKind
    name: str
    stamp: str
    target: str | None
    size: int = 0
    """Bytes of its file."""


@dataclass
class _Entry:
    number: int
    size: int
    """Bytes on a rank: those of its file until ranks have told."""
    unread: set[int]
    """Ranks that have not reported yet."""
    digest: str | None = None
    """Of what ranks have read."""
    warnings: tuple[RequestWarning, ...] = ()
    """About the file; all ranks read the same."""
    error: WireError | None = None
    users: set[str] = field(default_factory=set)
    """Queued or running requests that use it, or will once it is loaded."""


class AdapterCache:
    """Holds adapters in use, and the most recently used ones up to `capacity` and `most_bytes`.

    It decides what the next plan loads and unloads, and counts that as done: ranks carry out plans
    in order. Its own order is by use, least recent first.
    """

    def __init__(
        self, folders: Mapping[AdapterKind, str | None], capacity: int, ranks: int
    ) -> None:
        self._folders = {
            kind: _FOLDERS[kind](Path(folder)) for kind, folder in folders.items() if folder
        }
        self._capacity = capacity
        self.of_model: tuple[str, ...] = ()
        """Controls that the model itself has; known once the ranks have loaded."""
        self.most_bytes = sys.maxsize
        """Bytes on each rank for all of them; known once the ranks have loaded."""
        self._ranks = ranks
        self._entries: dict[AdapterVersion, _Entry] = {}
        self._waiting: dict[str, tuple[AdapterVersion, ...]] = {}
        """Requests that wait for space or for adapters being read, in order."""
        self._held: dict[str, tuple[AdapterVersion, ...]] = {}
        """Requests whose adapters have their space assigned."""
        self._numbers = itertools.count()
        self._load: list[AdapterLoad] = []
        self._unload: list[int] = []

    def find(self, params: SamplingParams) -> tuple[AdapterVersion, ...]:
        """Resolve the names of LoRAs, then of controls, to the current versions on disk. Raises
        InvalidRequest."""
        loras = [self._version("lora", choice.name, choice.target) for choice in params.lora]
        named = (choice.name for choice in params.control)
        controls = [self._version("control", name) for name in named if name not in self.of_model]
        versions = (*loras, *controls)
        count, size = len({*versions}), sum(version.size for version in {*versions})
        names = ", ".join(version.name for version in versions)
        if count > self._capacity:
            allowed = f"must be at most {self._capacity} LoRAs and controls (max_loaded_loras)"
            raise InvalidRequest(versions[-1].kind, names, allowed)
        if size > self.most_bytes:
            allowed = f"takes {size / 1e9:.3g} GB, more than the {self.most_bytes / 1e9:.3g} GB "
            raise InvalidRequest(versions[-1].kind, names, f"{allowed}for them (max_lora_gb)")
        return versions

    def _version(self, kind: AdapterKind, name: str, target: str | None = None) -> AdapterVersion:
        if (folder := self._folders.get(kind)) is None:
            raise InvalidRequest(kind, name, f"the server was started without {kind}_dir")
        try:
            file = folder.find(name)
            size = file.weights.stat().st_size
            return AdapterVersion(kind, name, file.stamp, target, size)
        except OSError as error:
            raise InvalidRequest(kind, name, f"can't be read: {error.strerror}") from error

    # -- requests

    def wait(self, request_id: str, versions: tuple[AdapterVersion, ...]) -> None:
        """Let the request wait for its adapters."""
        self._waiting[request_id] = versions
        self._give_places()

    def leave(self, request_id: str) -> None:
        """Release the adapters of a request that has ended; no effect if it has none."""
        self._waiting.pop(request_id, None)
        for version in self._held.pop(request_id, ()):
            self._entries[version].users.discard(request_id)
        self._shrink()

    def take_ready(self) -> list[str]:
        """Remove and return the waiting requests whose adapters all ranks have read."""
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
        """Load numbers of a ready request, in the order of `find`."""
        return tuple(self._entries[version].number for version in self._held.get(request_id, ()))

    def warnings(self, request_id: str) -> list[RequestWarning]:
        """Warnings about the adapters of a ready request."""
        versions = self._held.get(request_id, ())
        found = (warning for version in versions for warning in self._entries[version].warnings)
        return [*dict.fromkeys(found)]

    # -- ranks

    def orders(self) -> tuple[tuple[int, ...], tuple[AdapterLoad, ...]]:
        """Unload and load orders for the next plan, which must be sent."""
        orders = tuple(self._unload), tuple(self._load)
        self._unload.clear()
        self._load.clear()
        return orders

    @property
    def has_orders(self) -> bool:
        return bool(self._load or self._unload)

    def reported(self, read: AdapterRead) -> dict[str, WireError]:
        """Record that a rank has read an adapter or failed to. Returns the requests that fail, with
        errors."""
        version, entry = next(
            (version, entry)
            for version, entry in self._entries.items()
            if entry.number == read.number
        )
        entry.unread.discard(read.rank)
        entry.error = entry.error or read.error or _differing(version, entry, read)
        entry.size = read.size if entry.digest is None else max(entry.size, read.size)
        entry.digest = read.digest
        entry.warnings = entry.warnings or read.warnings
        if entry.unread or entry.error is None:
            self._shrink()
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

    def _hold(self, request_id: str, versions: tuple[AdapterVersion, ...]) -> bool:
        """Assign space for all of a request's adapters, or none."""
        new = {version for version in versions if version not in self._entries}
        count = len(self._entries) + len(new)
        size = self._size + sum(version.size for version in new)
        going = []
        for version in self._idle():
            if version not in versions and (count > self._capacity or size > self.most_bytes):
                going.append(version)
                count, size = count - 1, size - self._entries[version].size
        others = len(self._entries) - len(going) + len(new) > len({*versions})
        if count > self._capacity or (size > self.most_bytes and others):
            return False
        for version in going:
            self._remove(version)
        for version in versions:
            self._use(version, request_id)
        self._held[request_id] = versions
        return True

    @property
    def _size(self) -> int:
        return sum(entry.size for entry in self._entries.values())

    def _idle(self) -> list[AdapterVersion]:
        """Adapters that nothing uses, least recently used first."""
        entries = self._entries.items()
        return [version for version, each in entries if not each.users and not each.unread]

    def _shrink(self) -> None:
        """Unload what is too much, where files take more memory than their size."""
        for version in self._idle():
            if self._size <= self.most_bytes:
                break
            self._remove(version)

    def _use(self, version: AdapterVersion, request_id: str) -> None:
        entry = self._entries.pop(version, None)
        if entry is None:
            entry = _Entry(next(self._numbers), version.size, set(range(self._ranks)))
            self._load.append(
                AdapterLoad(
                    number=entry.number,
                    name=version.name,
                    kind=version.kind,
                    target=version.target,
                )
            )
        entry.users.add(request_id)
        self._entries[version] = entry

    def _remove(self, version: AdapterVersion) -> None:
        self._unload.append(self._entries.pop(version).number)


def _differing(version: AdapterVersion, entry: _Entry, read: AdapterRead) -> WireError | None:
    """Error if ranks, perhaps on several hosts, have read different files."""
    if entry.digest in (None, read.digest):
        return None
    what = "is not the same file for all ranks: their hosts need equal folders"
    return WireError.of(InvalidRequest(version.kind, version.name, what))
