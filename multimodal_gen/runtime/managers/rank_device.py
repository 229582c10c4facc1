"""The device of a rank: which one, with which dtype, and what its memory allows."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import partial

import psutil
import torch
import torch.distributed as dist

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import InvalidRequest, OutOfMemory
from multimodal_gen.messages.rank_args import RankPlace
from multimodal_gen.messages.reply import RankMemory

WORKSPACE_BYTES = 2**29
"""Bytes that libraries allocate on a GPU only when they are first used: cuBLAS, cuDNN, NCCL."""
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",  # the CUDA driver, also through NCCL
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER, and hipBLAS
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for its workspace
    "miopenStatusAllocFailed",
)
"""In messages of allocators and libraries whose errors have no class of their own."""


def choose_device(engine: EngineArgs, place: RankPlace) -> torch.device:
    """Return the device of a rank: the GPU of its number on its host. Raises InvalidRequest."""
    available = torch.cuda.is_available()
    if engine.device == "cuda" and not available:
        raise InvalidRequest("device", engine.device, _why_no_gpu())
    if engine.device == "cpu" or not available:
        return torch.device("cpu")
    if place.local_rank >= (there := torch.cuda.device_count()):
        allowed = f"there are {there} GPUs on {platform.node()}; at most that on each machine"
        raise InvalidRequest("num_gpus", engine.num_gpus, allowed)
    return torch.device("cuda", place.local_rank)


def _why_no_gpu() -> str:
    """A ROCm build of torch has AMD GPUs under the name cuda."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this build of torch is for CPUs only; install one for CUDA or ROCm, or use cpu"
    kind = "CUDA" if torch.version.hip is None else "ROCm"
    return f"there is no {kind} device here; use cpu"


def choose_dtype(engine: EngineArgs, device: torch.device) -> torch.dtype:
    """Return the dtype of the weights; `auto` is float16 on GPUs that only emulate bfloat16."""
    if engine.dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    dtype = getattr(torch, engine.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def keep_precision(dtype: torch.dtype) -> None:
    """Let convolutions of a model in float32 be in float32 on a GPU, too.

    By default cuDNN rounds their inputs to 10 bits (TF32). Products of matrices are not rounded.
    """
    torch.backends.cudnn.allow_tf32 = dtype is not torch.float32


def describe_device(device: torch.device) -> str:
    """Name and memory of the device: `NVIDIA H200 139 GiB`."""
    if device.type != "cuda":
        return f"{device.type} {psutil.virtual_memory().total >> 30} GiB"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} {found.total_memory >> 30} GiB"


def free_bytes(device: torch.device, local_ranks: int) -> int:
    """Bytes free for requests on this rank's device, which those of its host share if it is the
    CPU."""
    if device.type != "cuda":
        return psutil.virtual_memory().available // local_ranks
    torch.cuda.empty_cache()  # what loading freed counts as used until then
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, free - WORKSPACE_BYTES)


def memory_of(rank: int, device: torch.device) -> RankMemory:
    """Memory that this process takes now."""
    host = psutil.Process().memory_info().rss
    if device.type != "cuda":
        return RankMemory(rank=rank, host_bytes=host)
    return RankMemory(
        rank=rank,
        host_bytes=host,
        device_bytes=torch.cuda.memory_reserved(device),
        device_total_bytes=torch.cuda.get_device_properties(device).total_memory,
    )


def give_back_memory() -> None:
    """Return free memory to the system: glibc keeps what large tensors have left of the heap."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class PeakMemory:
    """Context manager that measures the most bytes that this thread's work adds on a GPU.

    It reads the allocator's counters, so the device need not be waited for. 0 on other devices.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._before = 0
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device is not None:
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before


def agree_on_memory(needed: int, device: torch.device, hold: Callable[[], None]) -> None:
    """Let `hold` bring weights to the device, and try to allocate the bytes that work `needed`.

    Raises OutOfMemory on every rank if one of them can't: collective if there are several, unless
    nothing is needed. Then it waits for the device.
    """
    if not (needed and dist.is_initialized()):
        hold()
        return
    allocate = partial(torch.empty, needed, dtype=torch.uint8, device=device)
    able = _finds_memory(hold) and _finds_memory(allocate)
    enough = torch.tensor([able], dtype=torch.int32, device=device)
    dist.all_reduce(enough, op=dist.ReduceOp.MIN)
    if not enough.item():
        raise OutOfMemory("the batch does not fit into the memory of every rank")


def _finds_memory(allocate: Callable[[], object]) -> bool:
    try:
        allocate()
    except Exception as raised:
        if not is_out_of_memory(raised):
            raise
        return False
    return True


def is_out_of_memory(raised: BaseException) -> bool:
    """True for errors of allocators and libraries that found no memory."""
    if isinstance(raised, torch.OutOfMemoryError | MemoryError | OutOfMemory):
        return True
    return isinstance(raised, RuntimeError) and any(text in str(raised) for text in _OUT_OF_MEMORY)
