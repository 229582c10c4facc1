"""What is checked of the device that only pretends; `python device_checks.py`.

Prints one JSON object: the name of each check -> null, or what went wrong. Run by
test_pretend_device.
"""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable

import pretend_device
import torch
from pretend_device import PretendDevice, PretendTensor
from torch.nn import functional as F


def _raises(kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def _kinds(device: PretendDevice, call: Callable[[], object]) -> list[str]:
    """The waits of a call, without their places."""
    with device.watching() as seen:
        call()
    return [wait.partition(":")[0] for wait in seen.waits.elements()]


def results_are_those_of_the_cpu(device: PretendDevice) -> None:
    x = torch.linspace(-1, 1, 12).view(3, 4)
    layer = torch.nn.Linear(4, 2)
    with torch.no_grad():
        expected = F.layer_norm(layer(x), (2,)).softmax(-1)
        there = F.layer_norm(layer.to(device.device)(x.to(device.device)), (2,)).softmax(-1)
    assert there.device == device.device
    assert torch.equal(there.cpu(), expected)


def what_is_made_there_is_there(device: PretendDevice) -> None:
    made = [
        torch.zeros(2, device=device.device),
        torch.arange(3, device=device.device),
        torch.tensor([1.0, 2.0], device=device.device),
    ]
    made += [torch.empty_like(made[0]), made[0].new_ones(3), made[0] + 1]
    assert all(isinstance(tensor, PretendTensor) for tensor in made)


def a_change_in_place_gives_the_same_tensor(device: PretendDevice) -> None:
    x = torch.zeros(2, device=device.device)
    assert x.add_(1) is x
    x[0] = 5
    assert x.tolist() == [5.0, 1.0]


def tensors_of_the_cpu_are_refused_unless_they_are_scalars(device: PretendDevice) -> None:
    x = torch.zeros(2, 3, device=device.device)
    _raises(RuntimeError, lambda: x + torch.ones(3))
    _raises(RuntimeError, lambda: torch.cat((x, torch.ones(1, 3))))
    q = torch.zeros(1, 1, 2, 4, device=device.device)
    mask = torch.ones(2, 2, dtype=torch.bool)
    _raises(RuntimeError, lambda: F.scaled_dot_product_attention(q, q, q, attn_mask=mask))
    assert (x + torch.tensor(2.0)).sum().item() == 12


def arrays_are_refused(device: PretendDevice) -> None:
    x = torch.zeros(2, device=device.device)
    _raises(TypeError, x.numpy)
    assert x.cpu().numpy().shape == (2,)


def reading_back_waits(device: PretendDevice) -> None:
    x = torch.arange(4, device=device.device)
    reads: list[Callable[[], object]] = [
        lambda: x[0].item(),
        lambda: bool(x[0] == 0),
        x.tolist,
        x.cpu,
        x.nonzero,
        lambda: x[x > 1],
        lambda: torch.equal(x, x),
        lambda: x.repeat_interleave(x),
        lambda: torch.zeros(4, dtype=torch.int64).copy_(x),
    ]
    for read in reads:
        assert _kinds(device, read) == ["read-back"], read


def copying_from_pageable_memory_waits(device: PretendDevice) -> None:
    x = torch.arange(4, device=device.device)
    copies: list[Callable[[], object]] = [
        lambda: torch.ones(4).to(device.device),
        lambda: x.copy_(torch.ones(4, dtype=torch.int64)),
        lambda: torch.tensor([1, 2], device=device.device),
        lambda: x[torch.tensor([1, 2])],
    ]
    for copy in copies:
        assert _kinds(device, copy) == ["copy to the device"], copy


def other_work_waits_for_nothing(device: PretendDevice) -> None:
    x = torch.arange(4, device=device.device)
    assert _kinds(device, lambda: torch.ones(4).to(device.device, non_blocking=True)) == []
    assert _kinds(device, lambda: (x.double() * 2).sum() + x[x.flip(0)]) == []
    assert _kinds(device, lambda: torch.ones(4).tolist()) == []


def operations_are_counted_there_only(device: PretendDevice) -> None:
    x = torch.ones(1, 1, 4, 8, device=device.device)
    with device.watching() as seen:
        torch.ones(4) + 1
        F.scaled_dot_product_attention(x, x, x).mul_(2)
    assert seen.operations == {"scaled_dot_product_attention": 1, "aten.mul_.Tensor": 1}
    x + 1
    assert seen.operations.total() == 2


def bytes_are_counted_while_a_tensor_uses_them(device: PretendDevice) -> None:
    before = device.memory.live
    x = torch.zeros(256, dtype=torch.float32, device=device.device)
    part = x[:8]
    assert device.memory.live == before + 1024
    del x
    assert device.memory.live == before + 1024
    del part
    assert device.memory.live == before
    assert device.memory.peak >= before + 1024


def threads_that_start_meanwhile_are_there_too(device: PretendDevice) -> None:
    made: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: made.append(torch.arange(3, device=device.device) + 1))
    thread.start()
    thread.join()
    assert made[0].tolist() == [1, 2, 3]


def streams_must_wait_for_what_others_have_written_or_use(device: PretendDevice) -> None:
    backend = torch.get_device_module(device.device)
    x = torch.zeros(4, device=device.device)
    side, used, filled = backend.Stream(), backend.Event(), backend.Event()
    x + 1

    def fill() -> None:
        with backend.stream(side):
            x.copy_(torch.ones(4), non_blocking=True)
            filled.record(side)

    x.add_(1)
    _raises(RuntimeError, fill)
    used.record(backend.current_stream())
    side.wait_event(used)
    fill()
    _raises(RuntimeError, lambda: x + 1)
    backend.current_stream().wait_event(filled)
    assert (x + 1).tolist() == [2, 2, 2, 2]


CHECKS: list[Callable[[PretendDevice], None]] = [
    results_are_those_of_the_cpu,
    what_is_made_there_is_there,
    a_change_in_place_gives_the_same_tensor,
    tensors_of_the_cpu_are_refused_unless_they_are_scalars,
    arrays_are_refused,
    reading_back_waits,
    copying_from_pageable_memory_waits,
    other_work_waits_for_nothing,
    operations_are_counted_there_only,
    bytes_are_counted_while_a_tensor_uses_them,
    threads_that_start_meanwhile_are_there_too,
    streams_must_wait_for_what_others_have_written_or_use,
]


def _outcome(check: Callable[[PretendDevice], None]) -> str | None:
    try:
        with PretendDevice() as device:
            check(device)
    except Exception:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    pretend_device.install()
    print(json.dumps({check.__name__: _outcome(check) for check in CHECKS}))
