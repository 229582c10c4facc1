"""Messages between node 0 and the other nodes of an engine."""

from __future__ import annotations

import msgspec

from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.version import __version__


class NodeJoin(msgspec.Struct, frozen=True, kw_only=True, tag="join"):
    """A node is there to run its ranks."""

    node: int
    nnodes: int
    host: str
    """Its name, for errors."""
    version: str = __version__


class NodeStart(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Start your ranks."""

    args: RankArgs
    """For all nodes; each fills in what is its own: the rank, its place, files and folders."""
    lora_dir: str | None = None
    """Node 0's, for nodes that have not been given another."""
    control_dir: str | None = None
    module: str
    """Module that each rank runs."""


class NodeEnd(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """End your ranks."""

    reason: str
    """Why; empty: because the engine was stopped."""
    again: bool
    """Another engine is going to be started."""


class NodeRanksEnded(msgspec.Struct, frozen=True, kw_only=True, tag="ranks_ended"):
    """A rank of this node has ended, or could not be started."""

    how: str


FromNode = NodeJoin | NodeRanksEnded
ToNode = NodeStart | NodeEnd
