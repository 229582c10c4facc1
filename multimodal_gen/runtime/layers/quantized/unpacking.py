"""Cost of unpacking weights for each product, where the device has no kernel for them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.quantized.storage import KeptWeight, Storage

_TOKENS = 1024
"""Rows of the products that are compared: what a picture of 512 x 512 has in a transformer."""
_NUMBERS = 1 << 20
_TRIES = 3


def unpacking_warnings(
    components: Mapping[str, object], device: torch.device, dtype: torch.dtype
) -> tuple[str, ...]:
    """A warning for each component with forms of weights that products on `device` unpack. It
    tells how many times as long they take, measured there."""
    warnings = []
    for name, component in components.items():
        if storages := _unpacked(component, device):
            times = max(_slowdown(storage, dtype) for storage in storages.values())
            warnings.append(
                f"{name}: this device has no kernel for weights in {', '.join(storages)}: they are "
                f"unpacked for each product, which takes about {times:.1f} times as long as "
                f"16-bit weights do with {_TOKENS} tokens"
            )
    return tuple(warnings)


def _unpacked(component: object, device: torch.device) -> dict[str, Storage]:
    """The largest storage of each form that is unpacked, on `device`."""
    largest: dict[str, Storage] = {}
    for storage in multiplied_storages(component):
        known = largest.get(storage.form)
        if known is None or storage.rows * storage.columns > known.rows * known.columns:
            largest[storage.form] = storage
    moved = {form: _on_device(storage, device) for form, storage in largest.items()}
    return {form: storage for form, storage in moved.items() if storage.unpacks}


def multiplied_storages(component: object) -> Iterator[Storage]:
    """Yield the storages that products are computed with."""
    for module in component.modules() if isinstance(component, nn.Module) else ():
        kept = getattr(module, "kept", None)
        if isinstance(kept, KeptWeight) and not isinstance(module, nn.Embedding):
            yield from (each for each in kept.storages if isinstance(each, Storage))


def _on_device(storage: Storage, device: torch.device) -> Storage:
    here = next(storage.buffers()).device == device
    return storage if here else copy.deepcopy(storage).to(device)


def _slowdown(storage: Storage, dtype: torch.dtype) -> float:
    """Time of a product that unpacks some rows of the weight, in times of one that need not."""
    rows = slice(0, min(storage.rows, max(1, _NUMBERS // storage.columns)))
    numbers = storage.numbers(rows, dtype)
    device = numbers.device
    x = torch.ones(_TOKENS, storage.columns, dtype=dtype, device=device)
    with _one_thread():
        unpacking = _seconds(lambda: storage.numbers(rows, dtype), device)
        product = _seconds(lambda: F.linear(x, numbers), device)
    return 1 + unpacking / max(product, 1e-9)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in this thread: its time on a CPU does not depend on what others do there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Shortest time of several tries."""
    return min(_once(work, device) for _ in range(_TRIES))


def _once(work: Callable[[], object], device: torch.device) -> float:
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started
