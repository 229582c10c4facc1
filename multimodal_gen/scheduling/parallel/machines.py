"""Speeds of devices and of the links between them.

Rates are what programs reach, not what data sheets promise: about 80 % of a bf16 product's peak, 85
% of memory's, and 90 % of a link's, in one direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Interconnect:
    """Connection of a rank with others."""

    bytes_per_s: float
    """In each direction."""
    latency_s: float
    """Of an exchange, whatever its size."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices of one kind, and how they are connected."""

    operations_per_s: float
    """Floating-point operations of products."""
    memory_bytes_per_s: float
    launch_s: float
    """Time of the host for each operation."""
    queues: bool = True
    """Whether the host goes on meanwhile."""
    link: Interconnect
    """Between the ranks of one host."""
    memory_bytes: float = float("inf")
    """Memory of a device that weights and work may take."""
    ranks_per_host: int | None = None
    """None: all are on one host."""

    def with_memory(self, size: float) -> Machine:
        """The same, with `size` bytes for weights."""
        return replace(self, memory_bytes=size)


NVLINK_5 = Interconnect(8e11, 15e-6)
"""Blackwell: 900 GB/s each way (NVIDIA's data sheet)."""
NVLINK_4 = Interconnect(4e11, 15e-6)
"""Hopper: 450 GB/s each way (NVIDIA's data sheet)."""
NVLINK_3 = Interconnect(2.7e11, 15e-6)
"""Ampere: 300 GB/s each way (NVIDIA's data sheet)."""
XGMI = Interconnect(5e10, 20e-6)
"""MI300: seven links of 64 GB/s each way, one to each neighbour (AMD's data sheet)."""
PCIE = Interconnect(2e10, 20e-6)
"""PCIe 4.0 with 16 lanes: 32 GB/s each way (PCI-SIG), through the host's memory."""
LOOPBACK = Interconnect(1e9, 2e-4)
"""gloo over a loopback interface: assumed."""
NETWORK = Interconnect(2.5e10, 30e-6)
"""Between hosts: one adapter of 200 Gb/s for each device, assumed."""

_GPU = Machine(operations_per_s=1e14, memory_bytes_per_s=8e11, launch_s=5e-6, link=PCIE)
"""A GPU that is not in the table."""


def _gpu(operations: float, memory: float, link: Interconnect) -> Machine:
    speeds = {"operations_per_s": operations, "memory_bytes_per_s": memory, "link": link}
    return replace(_GPU, **speeds)  # type: ignore[arg-type]


_KNOWN = {
    "B300": _gpu(1.8e15, 6.8e12, NVLINK_5),
    "B200": _gpu(1.8e15, 6.8e12, NVLINK_5),  # 2,250 TFLOP/s and 8 TB/s (NVIDIA)
    "H200": _gpu(7.9e14, 4.0e12, NVLINK_4),  # products measured; 4.8 TB/s (NVIDIA)
    "H100": _gpu(7.9e14, 2.8e12, NVLINK_4),  # the chip of the H200; 3.35 TB/s (NVIDIA)
    "H800": _gpu(7.9e14, 2.8e12, replace(NVLINK_4, bytes_per_s=1.8e11)),  # 200 GB/s each way
    "A100": _gpu(2.5e14, 1.7e12, NVLINK_3),  # 312 TFLOP/s and 2.0 TB/s (NVIDIA)
    "MI300": _gpu(7e14, 4.4e12, XGMI),  # 1,307 TFLOP/s and 5.3 TB/s (AMD), of which less is reached
    "RTX 5090": _gpu(1.7e14, 1.5e12, PCIE),  # 210 TFLOP/s with float32 sums, 1.8 TB/s (NVIDIA)
    "RTX 4090": _gpu(1.4e14, 8.5e11, PCIE),  # 165 TFLOP/s with float32 sums, 1.0 TB/s (NVIDIA)
    "L40": _gpu(1.5e14, 7.3e11, PCIE),  # 181 TFLOP/s and 864 GB/s (NVIDIA)
}
"""By a part of the device's name. Cards with PCIe in their name have no NVLink."""


def gpu_called(name: str) -> Machine:
    """Speeds of a GPU of this name."""
    found = next((machine for part, machine in _KNOWN.items() if part in name), _GPU)
    return replace(found, link=PCIE) if "PCIe" in name else found


def cpu_ranks(ranks: int) -> Machine:
    """Speeds of each of several ranks that share one host's cores and memory."""
    return Machine(
        operations_per_s=5e10 / ranks,
        memory_bytes_per_s=1e10 / ranks,
        launch_s=1e-5,
        queues=False,
        link=LOOPBACK,
    )
