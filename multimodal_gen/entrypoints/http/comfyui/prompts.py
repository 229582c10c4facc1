"""Accepted prompts: the queue, and the history of those that ended."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from multimodal_gen.entrypoints.http.comfyui.graph.graph import Node
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import Sampling
from multimodal_gen.entrypoints.http.comfyui.node_progress import NodeProgress
from multimodal_gen.entrypoints.http.comfyui.prompt_jobs import job_of
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultKey
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task

MAX_HISTORY = 1000
MAX_HISTORY_BYTES = 16 * 2**20
"""Both of each owner."""


@dataclass(frozen=True)
class Part:
    """One sampler of a prompt, and the nodes that ComfyUI would run before and after it."""

    sampling: Sampling
    task: Task
    before: Sequence[Node]
    after: Sequence[Node]
    keys: Mapping[str, ResultKey | None]
    """Keys for the cache, by id of the output node."""


@dataclass(eq=False, kw_only=True)
class Prompt:
    """One accepted graph, in the queue or the history."""

    id: str
    number: float
    owner: Owner
    model: str
    client_id: str | None
    graph: Mapping[str, Any]
    extra_data: Mapping[str, Any]
    parts: Sequence[Part]
    outputs: Sequence[str]
    """Ids of the output nodes."""
    warnings: Sequence[RequestWarning]
    """What of the graph has no effect, or another than asked for."""
    cached: Mapping[str, Any] = field(default_factory=dict)
    """Results of output nodes that need not run, by node id."""
    cached_nodes: Sequence[str] = ()
    """Ids of all nodes that need not run."""
    node: str | None = None
    """Node being executed."""
    results: dict[str, Any] = field(default_factory=dict)
    """Results of output nodes, by node id."""
    messages: list[list[Any]] = field(default_factory=list)
    """Events of its start and its end."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has the prompt's id."""
    dropped: bool = False
    """Removed from the queue: nothing is kept."""

    @property
    def runs(self) -> bool:
        return any(part.task.status != "queued" for part in self.parts)

    def __post_init__(self) -> None:
        self.progress = NodeProgress(self.id)

    def cancel(self) -> None:
        for part in self.parts:
            part.task.cancel()

    def to_json(self) -> list[Any]:
        """Entry in the queue and the history."""
        extra = dict(self.extra_data)
        if self.client_id is not None:
            extra["client_id"] = self.client_id
        return [self.number, self.id, self.graph, extra, self.outputs]

    def ended(self) -> dict[str, Any]:
        """Build its history entry."""
        succeeded = bool(self.messages) and self.messages[-1][0] == "execution_success"
        same = ("node_id", "display_node", "real_node_id")
        return {
            "prompt": self.to_json(),
            "outputs": self.results,
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": self.messages,
            },
            "meta": {
                node: {**dict.fromkeys(same, node), "parent_node": None} for node in self.results
            },
        }


@dataclass
class _History:
    """An owner's entries by prompt id, oldest first, as JSON: small, and without references."""

    entries: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Their entries in `/api/jobs`."""
    size: int = 0

    def add(self, prompt_id: str, entry: bytes, job: dict[str, Any]) -> None:
        """Add an entry, and drop the oldest ones that are too many."""
        self.remove(prompt_id)
        self.entries[prompt_id], self.jobs[prompt_id] = entry, job
        self.size += len(entry)
        while len(self.entries) > MAX_HISTORY or self.size > MAX_HISTORY_BYTES:
            self.remove(next(iter(self.entries)))

    def remove(self, prompt_id: str) -> None:
        self.jobs.pop(prompt_id, None)
        self.size -= len(self.entries.pop(prompt_id, b""))


class Prompts:
    """Prompts of all owners; each sees only their own, and none are dropped for another's."""

    def __init__(self) -> None:
        self._queue: dict[tuple[str, str], Prompt] = {}
        self._history: defaultdict[str, _History] = defaultdict(_History)
        self._numbers = itertools.count()

    def next_number(self) -> int:
        return next(self._numbers)

    def add(self, prompt: Prompt) -> None:
        self._queue[prompt.owner.name, prompt.id] = prompt

    def end(self, prompt: Prompt) -> None:
        """Move a prompt from the queue to the history."""
        self._queue.pop((prompt.owner.name, prompt.id), None)
        if not prompt.dropped:
            entry = msgspec.json.encode(prompt.ended())
            self._history[prompt.owner.name].add(prompt.id, entry, job_of(prompt))

    def queue(self, owner: Owner) -> list[Prompt]:
        """Prompts in order of acceptance."""
        return [prompt for (name, _), prompt in self._queue.items() if name == owner.name]

    def history(self, owner: Owner) -> dict[str, msgspec.Raw]:
        """JSON entries by prompt id, oldest first."""
        entries = self._history[owner.name].entries
        return {prompt_id: msgspec.Raw(entry) for prompt_id, entry in entries.items()}

    def ended_jobs(self, owner: Owner) -> Mapping[str, dict[str, Any]]:
        """Entries of `/api/jobs` by prompt id, oldest first."""
        return self._history[owner.name].jobs

    def knows(self, owner: Owner, prompt_id: str) -> bool:
        queued = (owner.name, prompt_id) in self._queue
        return queued or prompt_id in self._history[owner.name].entries

    def forget(self, owner: Owner, prompt_id: str) -> None:
        """Remove from the history."""
        self._history[owner.name].remove(prompt_id)
