"""Arguments of authentication: the keys that clients send."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup


@dataclass(frozen=True, kw_only=True)
class KeyArgs(ArgumentGroup):
    api_key: str | None = None
    """Key that clients send as a bearer token. As a flag it is visible in `ps`."""
    api_keys_file: str | None = None
    """YAML file of keys, `name: key` or `name: {key: …, weight: 2}`; reread on change."""
    admin_key: str | None = None
    """Key for administrative routes; also accepted everywhere else. As a flag: see --api-key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("must not be empty", bool, "api_key", "admin_key")
