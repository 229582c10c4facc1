"""Graphs of a device's work: recorded once, then launched as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Capturable = Callable[[], Tensor]
"""An evaluation of fixed inputs: it reads the same memory at each call."""


class DeviceGraph(Protocol):
    """Recorded work that reads and writes the same memory at each replay."""

    output: Tensor
    """Result of the last replay; the next replay overwrites it."""

    def replay(self) -> None:
        """Queue the work on the current stream."""


class GraphBackend(Protocol):
    """Records graphs on one device."""

    def capture(self, evaluate: Capturable) -> DeviceGraph:
        """Record what `evaluate` queues. It is called more than once: what it makes lazily and
        keeps must be there before the recording. Raises RuntimeError if it can't be recorded."""


def graphs_of(device: torch.device) -> GraphBackend | None:
    """The backend for a device, if it has graphs."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """CUDA graphs that share one pool of memory.

    They run one after the other, and only their outputs outlive a replay: so the pool is as large
    as the largest of them, plus the outputs.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        """Libraries keep a workspace per stream: that of warm-ups is the recordings', too."""
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, evaluate: Capturable) -> DeviceGraph:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            evaluate()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on: one reads adapters to the device meanwhile.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            output = evaluate()
        return _CudaGraph(graph, output)


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph = graph
        self.output = output

    def replay(self) -> None:
        self._graph.replay()
