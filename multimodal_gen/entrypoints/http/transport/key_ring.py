"""API keys: `api_key`, the named keys of `api_keys_file`, and `admin_key`."""

from __future__ import annotations

import hmac
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from multimodal_gen.configs.arguments.key_args import KeyArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.serving.owner import Owner, Share

log = logging.getLogger(__name__)
API_KEY_OWNER, ADMIN = "default", "admin"
"""Owner names of api_key and admin_key."""
_RESERVED = frozenset({Owner().name, API_KEY_OWNER, ADMIN})
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_LOOK_S = 1.0
"""Interval between checks of the file for changes."""


@dataclass(frozen=True)
class NamedKey:
    """One entry of `api_keys_file`."""

    name: str
    key: str
    share: Share


class KeyRing:
    """Maps keys to owners. Only hashes are kept in memory, with a salt of this process."""

    def __init__(self, args: KeyArgs) -> None:
        """Raises InvalidRequest for an invalid or unreadable file."""
        self._args = args
        self._salt = secrets.token_bytes(32)
        self.shares: dict[str, Share] = {}
        """What each owner is entitled to, by name; without the administrator."""
        self._path = None if args.api_keys_file is None else user_path(args.api_keys_file)
        self._seen = self._look()
        self._looked = time.monotonic()
        self._read()

    @property
    def guards(self) -> bool:
        """True if non-administrative routes require a key."""
        return self._args.api_key is not None or self._path is not None

    def owner_of(self, key: bytes) -> Owner | None:
        """Return the owner of `key`, or None. Compares in constant time."""
        self._refresh()
        given = self._hash(key)
        found = None
        for known, owner in self._owners:
            if hmac.compare_digest(known, given):
                found = owner
        return found

    def _refresh(self) -> None:
        """Reload the file if it has changed; keep the current keys if it is invalid."""
        now = time.monotonic()
        if self._path is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._read()
            log.info("api_keys_file: reloaded, %d keys", len(self._owners))
        except MultimodalGenError as error:
            log.error("api_keys_file: keeping the previous keys: %s", error.message)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> None:
        named = [] if self._path is None else read_keys(self._path)
        owners = [(self._hash(each.key.encode()), Owner(each.name)) for each in named]
        if self._args.api_key is not None:
            owners.append((self._hash(self._args.api_key.encode()), Owner(API_KEY_OWNER)))
        if self._args.admin_key is not None:
            owners.append((self._hash(self._args.admin_key.encode()), Owner(ADMIN, admin=True)))
        if len({known for known, _ in owners}) < len(owners):
            raise InvalidRequest("api_keys_file", str(self._path), "two names have the same key")
        self._owners = owners
        granted = {each.name: each.share for each in named}
        self.shares.clear()
        self.shares.update({o.name: granted.get(o.name, Share()) for _, o in owners if not o.admin})

    def _hash(self, key: bytes) -> bytes:
        return hmac.digest(self._salt, key, "sha256")


def read_keys(path: Path) -> list[NamedKey]:
    """Read the keys of a YAML file: `name: key`, or `name: {key: …, max_concurrent: 2, weight: 1.5,
    priorities: true}`, each of which but the key may be left out.

    Raises InvalidRequest, which reveals only names from the file, not keys.
    """
    try:
        # Composed, not loaded: a key of digits stays text, and duplicate names are detected.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise InvalidRequest("api_keys_file", str(path), f"{error.strerror}") from None
    except Exception:  # The library raises what it happens to raise, as for "\UFFFFFFFF".
        raise InvalidRequest("api_keys_file", str(path), "is not valid YAML") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise InvalidRequest("api_keys_file", str(path), "must have lines of the form `name: key`")
    keys = [_entry(name, value) for name, value in root.value]
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest("api_keys_file", name, "the name is duplicated")
    return keys


def _entry(name_node: yaml.Node, value: yaml.Node) -> NamedKey:
    name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        reserved = ", ".join(sorted(_RESERVED))
        allowed = f"a name must have 1 to 64 letters, digits and ._@-, and must not be {reserved}"
        raise InvalidRequest("api_keys_file", name, allowed)
    if not isinstance(value, yaml.MappingNode):
        return NamedKey(name, _key(name, value), Share())
    given = {str(field.value): node for field, node in value.value}
    if "key" not in given or given.keys() - {"key", *_GRANTS}:
        allowed = f"an entry takes key, and may have {', '.join(_GRANTS)}"
        raise InvalidRequest("api_keys_file", name, allowed)
    key = _key(name, given.pop("key"))
    granted = {field: _GRANTS[field](name, node) for field, node in given.items()}
    return NamedKey(name, key, Share(**granted))


def _key(name: str, node: yaml.Node) -> str:
    key = node.value
    if not isinstance(key, str) or not key or not key.isprintable() or " " in key:
        raise InvalidRequest("api_keys_file", name, "the key must be printable text without spaces")
    return key


def _count(name: str, node: yaml.Node) -> int:
    given = node.value
    if not (isinstance(given, str) and given.isdecimal() and len(given) < 10 and int(given) >= 1):
        raise InvalidRequest(
            "api_keys_file", name, "max_concurrent must be an integer of 1 or more"
        )
    return int(given)


def _weight(name: str, node: yaml.Node) -> float:
    try:
        weight = float(node.value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0.01 <= weight <= 100:
        raise InvalidRequest("api_keys_file", name, "weight must be a number from 0.01 to 100")
    return weight


def _yes(name: str, node: yaml.Node) -> bool:
    if node.value not in ("true", "false"):
        raise InvalidRequest("api_keys_file", name, "priorities must be true or false")
    return bool(node.value == "true")


_GRANTS: dict[str, Callable[[str, yaml.Node], Any]] = {
    "max_concurrent": _count,
    "weight": _weight,
    "priorities": _yes,
}
"""Fields of an entry besides the key, as in Share, with their readers."""
