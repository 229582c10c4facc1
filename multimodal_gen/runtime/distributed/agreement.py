"""Checks that ranks on several hosts run the same: one that differs would make other pictures, or
wait for ever inside a collective."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.distributed.link_store import Store
from multimodal_gen.version import __version__

_PACKAGES = ("torch", "diffusers", "transformers")
_KEY = "facts"


def versions() -> dict[str, str]:
    """Versions of the packages that pixels depend on."""
    return {"multimodal_gen": __version__, **{name: _version(name) for name in _PACKAGES}}


def require_alike(store: Store, rank: int, node: int, facts: Mapping[str, str]) -> None:
    """Compare this rank's `facts` with rank 0's; every rank calls it once.

    Raises InvalidRequest, which names this node and the first fact that differs, on ranks that do.
    """
    if rank == 0:
        store.set(_KEY, msgspec.json.encode(facts).decode())
        return
    wanted = msgspec.json.decode(store.get(_KEY), type=dict[str, str])
    for name in sorted(wanted.keys() | facts.keys()):
        here, there = facts.get(name, "missing"), wanted.get(name, "missing")
        if here != there:
            what = f"{name} is {here} on {platform.node()}, but {there} on node 0"
            raise InvalidRequest("node_rank", node, f"must run what node 0 runs: {what}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
