"""Time of a rank's operations and exchanges, each in its place."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.scheduling.parallel.machines import Machine


@dataclass
class Timeline:
    """A host that launches, a device that works, and a network; seconds since the start.

    The device begins an operation when it is launched and the one before is done. A product takes
    the time of its arithmetic, or that of reading its weights if `reads_weights` and it is longer;
    anything else that of its passes over memory. An exchange begins when what it sends is
    there and the exchange before is done; the device goes on until somebody waits for it.
    """

    machine: Machine
    reads_weights: bool = False
    host: float = 0.0
    device: float = 0.0
    network: float = 0.0

    def operation(self, operations: float, passes: float) -> None:
        """Launch an operation of so many floating-point operations and bytes."""
        self.host += self.machine.launch_s
        took = operations / self.machine.operations_per_s
        if self.reads_weights or not operations:
            took = max(took, passes / self.machine.memory_bytes_per_s)
        self.device = max(self.device, self.host) + took

    def exchange(self, size: float) -> float:
        """Launch an exchange of so many bytes; returns when it will be done."""
        self.host += self.machine.launch_s
        link = self.machine.link
        started = max(self.network, self.device, self.host)
        self.network = started + link.latency_s + size / link.bytes_per_s
        return self.network

    def wait(self, end: float) -> None:
        """Let the device wait until then; the host goes on."""
        self.device = max(self.device, end)

    @property
    def seconds(self) -> float:
        return max(self.host, self.device, self.network)
