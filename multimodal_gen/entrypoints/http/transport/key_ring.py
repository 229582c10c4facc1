"""The API keys that are known: a single one, several from a file, and the one for the admin."""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from multimodal_gen.configs.key_args import KeyArgs
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.serving.owner import Owner

log = logging.getLogger(__name__)
API_KEY_OWNER, ADMIN = "default", "admin"
"""What the holders of api_key and of admin_key are called."""
_RESERVED = frozenset({Owner().name, API_KEY_OWNER, ADMIN})
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_LOOK_S = 1.0
"""How often the file is looked at."""


@dataclass(frozen=True)
class NamedKey:
    """One entry of the file."""

    name: str
    key: str
    max_concurrent: int | None = None
    """Requests of its holder that are with the engine at a time."""


class KeyRing:
    """Tells owners by their keys. In memory are only hashes, under a salt of this process."""

    def __init__(self, args: KeyArgs) -> None:
        """Raises InvalidRequest for a file that can't be used."""
        self._args = args
        self._salt = secrets.token_bytes(32)
        self.concurrency: dict[str, int] = {}
        """Of owners with a limit: how many of their requests may be with the engine at a time."""
        self._path = None if args.api_keys_file is None else Path(args.api_keys_file).expanduser()
        self._seen = self._look()
        self._looked = time.monotonic()
        self._read()

    @property
    def guards(self) -> bool:
        """Whether a key is needed for what everybody may do."""
        return self._args.api_key is not None or self._path is not None

    def owner_of(self, key: bytes) -> Owner | None:
        """Who holds `key`. Takes as long for a key that is nearly right as for any other."""
        self._refresh()
        given = self._hash(key)
        found = None
        for known, owner in self._owners:
            if hmac.compare_digest(known, given):
                found = owner
        return found

    def _refresh(self) -> None:
        """Read the file again when it changed; what can't be read leaves things as they were."""
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
            log.info("api_keys_file: read again, %d keys", len(self._owners))
        except MultimodalGenError as error:
            log.error("the keys stay as they were: %s", error.message)

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
        limits = {each.name: each.max_concurrent for each in named}
        self.concurrency.clear()
        self.concurrency.update({name: n for name, n in limits.items() if n is not None})

    def _hash(self, key: bytes) -> bytes:
        return hmac.digest(self._salt, key, "sha256")


def read_keys(path: Path) -> list[NamedKey]:
    """The keys in a YAML file: `name: key`, or `name: {key: …, max_concurrent: 2}`.

    Raises InvalidRequest, which shows nothing of the file but names.
    """
    try:
        # Composed, not loaded: a key of digits stays text, a name that is there twice is seen.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise InvalidRequest("api_keys_file", str(path), f"{error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidRequest("api_keys_file", str(path), "is not valid YAML") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise InvalidRequest("api_keys_file", str(path), "must have lines of the form `name: key`")
    keys = [_entry(name, value) for name, value in root.value]
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest("api_keys_file", name, "is there twice")
    return keys


def _entry(name_node: yaml.Node, value: yaml.Node) -> NamedKey:
    name = str(name_node.value)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        allowed = "a name has up to 64 letters, digits and ._@-, and is not " + ", ".join(
            sorted(_RESERVED)
        )
        raise InvalidRequest("api_keys_file", name, allowed)
    if not isinstance(value, yaml.MappingNode):
        return NamedKey(name, _key(name, value))
    given = {str(field.value): node for field, node in value.value}
    if "key" not in given or given.keys() - {"key", "max_concurrent"}:
        raise InvalidRequest("api_keys_file", name, "takes key and max_concurrent")
    limit = given.get("max_concurrent")
    return NamedKey(name, _key(name, given["key"]), None if limit is None else _count(name, limit))


def _key(name: str, node: yaml.Node) -> str:
    key = node.value
    if not isinstance(key, str) or not key or not key.isprintable() or " " in key:
        raise InvalidRequest("api_keys_file", name, "needs a key without spaces")
    return key


def _count(name: str, node: yaml.Node) -> int:
    if not (isinstance(node.value, str) and node.value.isdecimal() and int(node.value) >= 1):
        raise InvalidRequest("api_keys_file", name, "max_concurrent must be a number from 1")
    return int(node.value)
