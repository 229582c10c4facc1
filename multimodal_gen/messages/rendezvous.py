"""Messages by which the ranks of an engine find each other: keys and values that the Scheduler
keeps for `torch.distributed`."""

from __future__ import annotations

from typing import Literal

import msgspec

StoreOp = Literal["get", "set", "add", "compare_set", "delete", "count"]


class StoreCall(msgspec.Struct, frozen=True, kw_only=True, tag="store_call"):
    """A rank's question or order."""

    rank: int
    op: StoreOp
    key: str = ""
    value: bytes = b""
    """For `add` a decimal number."""
    expected: bytes = b""
    """For `compare_set`: the value that is replaced; empty: none yet."""


class StoreReply(msgspec.Struct, frozen=True, tag="store_reply"):
    """Value of the key then; None: it has none."""

    value: bytes | None = None
