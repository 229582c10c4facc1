"""A device that only pretends: its tensors lie in CPU memory and say that they are elsewhere.

    pretend_device.install()                # before anything decorates with torch.inference_mode
    with PretendDevice() as device:
        pipeline = load_pipeline(folder, device=device.device, ...)
        with device.watching() as seen:
            pipeline.forward(...)
    seen.operations, seen.waits, device.memory.peak

As on a GPU, its tensors refuse to meet those of the CPU, but for scalars. It counts operations,
whatever makes the host wait for the device, and the bytes that are alive. It has streams, and
refuses what is not in order on them. It stands on two things of torch that may change: the private
backend in Python, and a dispatch mode.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import FrameType
from typing import Any, Self
from unittest import mock

import torch
from pretend_streams import Backend, Streams
from torch import Tensor
from torch.nn import functional as F
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "pretend"
WATCHED = ("multimodal_gen", "diffusers", "transformers")
"""Packages whose functions are named as the place of a wait."""

Options = Mapping[str, Any]
aten = torch.ops.aten
_READ = {
    aten._linalg_check_errors.default,
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.unique_dim.default,
}
"""Operations whose outcome, or its shape, the host must know."""
_INDEXING = {aten.index.Tensor, aten.index_put_.default}
_BY_HOST = {aten._local_scalar_dense.default, aten.equal.default}
"""Operations that give no tensor, or one that is the host's."""


@dataclass
class Seen:
    """What was done while somebody watched."""

    operations: Counter[str] = field(default_factory=Counter)
    """By name; an attention is one, whatever it consists of."""
    waits: Counter[str] = field(default_factory=Counter)
    """By kind and place: `"read-back: diffusers.schedulers.scheduling_euler.Euler.step"`."""
    copied: list[int] = field(default_factory=list)
    """Addresses of the host's tensors that were copied to the device, in order."""


_NUMBERS = (Tensor.__float__, Tensor.__int__, Tensor.__index__)


class PretendTensor(Tensor):
    """A tensor on the device. `stored` is its data, an ordinary tensor."""

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            stored.size(),
            strides=stored.stride(),
            storage_offset=stored.storage_offset(),
            dtype=stored.dtype,
            layout=stored.layout,
            device=torch.device(NAME, 0),
        )
        made.stored = stored
        _current().memory.hold(made)
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Options | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:  # which kernels it has depends on the device
            return _current().attend(*args, **kwargs)
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't make an array of a tensor on {NAME}: copy it to the CPU first")
        if func is Tensor.tolist:
            _current().wait("read-back")
            return args[0].stored.tolist()
        if func in _NUMBERS:  # as `torch.tensor` of a list of them does, below any mode
            _current().wait("read-back")
            return func(args[0].stored)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Options | None = None
    ) -> Any:
        return _current().dispatch(Call(func, args, kwargs or {}))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.stored!r})"


class Memory:
    """Bytes of the storages that any tensor still uses."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self._users: Counter[int] = Counter()

    def hold(self, tensor: PretendTensor) -> None:
        """Count its storage, once, until the last tensor on it has gone."""
        storage = tensor.stored.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._users[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._users[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.live -= size
            if _active:
                _current().streams.forget(key)


class PretendDevice:
    """The device, while this context lasts, also on threads that start meanwhile; one at a time."""

    def __init__(self) -> None:
        self.device = torch.device(NAME, 0)
        self.memory = Memory()
        self.streams = Streams()
        self._seen: Seen | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        _active.append(self)
        self._exit.callback(_active.remove, self)
        self._exit.enter_context(mock.patch.object(threading.Thread, "run", self._running))
        self._exit.enter_context(_Dispatch(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.close()

    @property
    def _running(self) -> Callable[[threading.Thread], None]:
        """`Thread.run`, with what each thread must be told anew."""
        run = threading.Thread.run

        def run_here(thread: threading.Thread) -> None:
            with _Dispatch(self):
                run(thread)

        return run_here

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """Count what is done meanwhile."""
        self._seen = seen = Seen()
        try:
            yield seen
        finally:
            self._seen = None

    def count(self, operation: str) -> None:
        if self._seen is not None:
            self._seen.operations[operation] += 1

    def wait(self, kind: str) -> None:
        """The host waits for the device here."""
        if self._seen is not None:
            self._seen.waits[f"{kind}: {_place()}"] += 1

    def attend(self, *args: Any, **kwargs: Any) -> Tensor:
        """Attention, as the one kernel that it is on a device."""
        _refuse_company("attention", tree_leaves((args, kwargs)))
        self.count("scaled_dot_product_attention")
        with _disable_current_modes():
            attended = F.scaled_dot_product_attention(*_stored(args), **_stored(kwargs))
        return PretendTensor(attended)

    def dispatch(self, call: Call) -> Any:
        """One operation of torch, on this device or on another."""
        if call.func is torch.ops.prim.device.default:
            (tensor,) = call.args
            return self.device if isinstance(tensor, PretendTensor) else tensor.device
        if call.here:
            self.streams.check(call.func, call.args, _storage)
            self.count(str(call.func))
            self._note_waits(call)
            if not (call.moves or call.func in _INDEXING):
                _refuse_company(str(call.func), call.leaves)
        elif call.moves:
            self._note_move(call)
        result = call.on_host()
        if call.func in _BY_HOST or not call.lands_here:
            return result
        return _wrapped(result, call.here)

    def _note_waits(self, call: Call) -> None:
        if call.moves:
            self._note_move(call)
        elif call.func in _READ:
            self.wait("read-back")
        elif call.func in _INDEXING:
            self._note_indices(call.args[1])
        elif call.func is aten.repeat_interleave.Tensor and "output_size" not in call.kwargs:
            self.wait("read-back")

    def _note_move(self, call: Call) -> None:
        """Copies from pageable memory wait, and all that go to the host, unless they say not to."""
        if self._seen is not None and call.lands_here and not call.comes_from_here:
            source = call.args[call.func is aten.copy_.default]
            self._seen.copied.append(source.data_ptr())
        if call.lands_here != call.comes_from_here and not call.non_blocking:
            self.wait("copy to the device" if call.lands_here else "read-back")

    def _note_indices(self, indices: Sequence[Tensor | None]) -> None:
        """By a mask, the host counts what is true in it; by a tensor of its own, it copies that."""
        given = [index for index in indices if index is not None]
        if any(index.dtype == torch.bool for index in given):
            self.wait("read-back")
        if not all(isinstance(index, PretendTensor) or not index.dim() for index in given):
            self.wait("copy to the device")


@dataclass(frozen=True)
class Call:
    """One operation, with what it was given."""

    func: Any
    args: Sequence[Any]
    kwargs: Options

    @cached_property
    def leaves(self) -> list[Any]:
        return tree_leaves((self.args, self.kwargs))

    @cached_property
    def here(self) -> list[PretendTensor]:
        """Its tensors that are on the device."""
        return [leaf for leaf in self.leaves if isinstance(leaf, PretendTensor)]

    @property
    def moves(self) -> bool:
        """Whether it may take a tensor from one device to another."""
        return self.func in (aten._to_copy.default, aten.copy_.default)

    @property
    def comes_from_here(self) -> bool:
        """Of one that moves."""
        return isinstance(self.args[self.func is aten.copy_.default], PretendTensor)

    @property
    def non_blocking(self) -> bool:
        """Of one that moves."""
        return bool(self.kwargs.get("non_blocking") or any(self.args[2:3]))

    @property
    def lands_here(self) -> bool:
        """Whether the outcome is on the device: where the call says, else where its tensors are."""
        if self.func is aten.copy_.default:
            return isinstance(self.args[0], PretendTensor)
        device = self.kwargs.get("device")
        return bool(self.here) if device is None else torch.device(device).type == NAME

    def on_host(self) -> Any:
        """Do it, with the tensors' data; what is asked for on the device is made on the CPU."""
        kwargs = _stored(self.kwargs)
        if kwargs.get("device") is not None and self.lands_here:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return self.func(*_stored(self.args), **kwargs)


class _Dispatch(TorchDispatchMode):
    """Sends a thread's operations by way of the device, those that make tensors included."""

    def __init__(self, device: PretendDevice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Options | None = None
    ) -> Any:
        return self._device.dispatch(Call(func, args, kwargs or {}))


def install() -> None:
    """Make the device known to torch: once in a process, before the code under test is imported.

    A tensor with data elsewhere can't be an inference tensor, so inference mode is no_grad.
    """
    backend_registration._setup_privateuseone_for_python_backend(
        NAME, backend_module=Backend(lambda: _current().streams)
    )
    torch.inference_mode = _inference_mode  # type: ignore[assignment, misc]
    for operation, kernel in _KERNELS.items():
        _library.impl(operation, kernel, "PrivateUse1")


def _inference_mode(mode: bool = True) -> torch.no_grad:
    return torch.no_grad()


# What torch does below any mode, as when it makes a tensor of a Python list.


def _empty(size: Sequence[int], dtype: torch.dtype | None = None, *_: Any, **__: Any) -> Tensor:
    with _disable_current_modes():
        return PretendTensor(torch.empty(size, dtype=dtype))


def _empty_strided(
    size: Sequence[int], stride: Sequence[int], dtype: torch.dtype | None = None, *_: Any, **__: Any
) -> Tensor:
    with _disable_current_modes():
        return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _current().wait("copy to the device")
    with _disable_current_modes():
        _stored(target).copy_(_stored(source))
    return target


_KERNELS: dict[str, Callable[..., Tensor]] = {
    "empty.memory_format": _empty,
    "empty_strided": _empty_strided,
    "_copy_from": _copy_from,
}
_library = torch.library.Library("aten", "IMPL")
_active: list[PretendDevice] = []


def _current() -> PretendDevice:
    if not _active:
        raise RuntimeError("a tensor outlives its PretendDevice")
    return _active[-1]


def _storage(tensor: Any) -> int | None:
    """Key of a tensor's memory on the device."""
    return tensor.stored.untyped_storage()._cdata if isinstance(tensor, PretendTensor) else None


def _refuse_company(what: str, leaves: Sequence[Any]) -> None:
    """Raise where a tensor of the CPU is among those of the device; scalars may be."""
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.dim() and leaf.device.type == "cpu":
            raise RuntimeError(f"{what}: tensors on {NAME} and on the CPU meet in {_place()}")


def _stored(tree: Any) -> Any:
    return tree_map_only(PretendTensor, lambda tensor: tensor.stored, tree)


def _wrapped(result: Any, given: Sequence[PretendTensor]) -> Any:
    """The outcome as tensors of the device; what was changed in place is still the same tensor."""
    known = {id(tensor.stored): tensor for tensor in given}

    def wrap(tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            return tensor
        return known[id(tensor)] if id(tensor) in known else PretendTensor(tensor)

    return tree_map_only(Tensor, wrap, result)


def _place() -> str:
    """The nearest caller in a watched package, as `module.function`."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in WATCHED:
            return f"{module}.{frame.f_code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back
    return "?"
