"""Progress of a prompt's nodes, as in the event `progress_state`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class NodeProgress:
    """Nodes that have started or ended."""

    prompt_id: str
    _nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _running: str | None = None

    def start(self, node: str) -> None:
        """Start a node; the one before it has finished."""
        self.stop("finished")
        self._put(node, "running", 0, 1)
        self._running = node

    def advance(self, value: int, most: int) -> None:
        """Set the progress of the running node."""
        if self._running is not None:
            self._put(self._running, "running", value, most)

    def stop(self, state: Literal["finished", "error"]) -> None:
        """Stop the running node."""
        if self._running is not None:
            entry = self._nodes[self._running]
            entry["state"] = state
            if state == "finished":
                entry["value"] = entry["max"]
            self._running = None

    def skip(self, node: str) -> None:
        """Finish a node that did not have to run."""
        self._put(node, "finished", 1, 1)

    def to_json(self) -> dict[str, Any]:
        return {"prompt_id": self.prompt_id, "nodes": self._nodes}

    def _put(self, node: str, state: str, value: int, most: int) -> None:
        self._nodes[node] = {
            "value": value,
            "max": most,
            "state": state,
            "node_id": node,
            "prompt_id": self.prompt_id,
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }
