"""Arguments that blocks are compiled with: of the same form as those of an evaluation, and empty.

They are plain data, so that another process can compile with them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec
import torch
from torch import Tensor

from multimodal_gen.runtime.layers.lora import LoraRows

_TABLES = ("rotary", "tables")
"""Fields whose first dimension is not the rows where it is 1."""
_PACKAGE = "multimodal_gen."


class TensorForm(msgspec.Struct, frozen=True, tag="tensor"):
    number: int
    """Equal for one tensor in two places."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    is_table: bool = False


class TupleForm(msgspec.Struct, frozen=True, tag="tuple"):
    items: tuple[ArgumentForm, ...]
    kind: str = ""
    """Module and name of a named tuple."""


class ListForm(msgspec.Struct, frozen=True, tag="list"):
    items: tuple[ArgumentForm, ...]


class LoraForm(msgspec.Struct, frozen=True, tag="lora"):
    rows: int


class PlainForm(msgspec.Struct, frozen=True, tag="plain"):
    value: bool | int | float | str | None


ArgumentForm = TensorForm | TupleForm | ListForm | LoraForm | PlainForm


class Example(msgspec.Struct, frozen=True):
    """Arguments of a block."""

    positional: tuple[ArgumentForm, ...]
    named: dict[str, ArgumentForm]

    @classmethod
    def of(
        cls, args: tuple[Any, ...], kwargs: dict[str, Any], *, rotary_by_row: bool = False
    ) -> Example:
        """Describe these arguments; with `rotary_by_row` each row has a rotary table. Raises
        TypeError for those that are no data."""
        by_name = () if rotary_by_row else _TABLES
        seen: dict[int, int] = {}
        named = {name: _form(each, seen, by_name, name in by_name) for name, each in kwargs.items()}
        return cls(tuple(_form(each, seen, by_name) for each in args), named)

    def arguments(self, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make such arguments, of at least two rows: graphs for these hold for one as well."""
        made = _Maker(device)
        named = {name: made(each) for name, each in self.named.items()}
        return tuple(made(each) for each in self.positional), named

    @property
    def kind(self) -> str:
        """Equal for arguments that need the same graph, whatever their sizes."""
        told = [_kind(each) for each in self.positional]
        return " ".join((*told, *(f"{name}={_kind(each)}" for name, each in self.named.items())))


def _form(
    each: Any, seen: dict[int, int], by_name: tuple[str, ...], table: bool = False
) -> ArgumentForm:
    match each:
        case Tensor():
            number = seen.setdefault(id(each), len(seen))
            dtype = str(each.dtype).removeprefix("torch.")
            return TensorForm(number, tuple(each.shape), each.stride(), dtype, table)
        case LoraRows():
            return LoraForm(each.total)
        case tuple():
            names = getattr(each, "_fields", ())
            kind = f"{type(each).__module__}:{type(each).__name__}" if names else ""
            are_tables = [table or name in by_name for name in names] or [table] * len(each)
            items = zip(each, are_tables, strict=True)
            return TupleForm(tuple(_form(i, seen, by_name, t) for i, t in items), kind)
        case list():
            return ListForm(tuple(_form(i, seen, by_name, table) for i in each))
        case bool() | int() | float() | str() | None:
            return PlainForm(each)
    raise TypeError(f"{type(each).__name__} is no data")


class _Maker:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tensors: dict[int, Tensor] = {}

    def __call__(self, form: ArgumentForm) -> Any:
        match form:
            case TensorForm():
                if form.number not in self._tensors:
                    self._tensors[form.number] = self._tensor(form)
                return self._tensors[form.number]
            case LoraForm():
                return LoraRows([()] * max(2, form.rows), self._device)
            case TupleForm(kind=""):
                return tuple(self(each) for each in form.items)
            case TupleForm():
                return _named_tuple(form.kind)(*(self(each) for each in form.items))
            case ListForm():
                return [self(each) for each in form.items]
            case PlainForm():
                return form.value

    def _tensor(self, form: TensorForm) -> Tensor:
        shape = list(form.shape)
        if shape and shape[0] == 1 and not form.is_table:
            shape[0] = 2
        dtype = getattr(torch, form.dtype)
        made = torch.empty_strided(shape, form.stride, dtype=dtype, device=self._device)
        made.fill_(0 if dtype.is_floating_point else 1)
        for dim, size in enumerate(form.shape):
            is_tokens = dim == 1 and size > 1 and len(shape) > 2
            is_rows = dim == 0 and not (form.is_table and size == 1)
            if not (is_rows or is_tokens):
                torch._dynamo.mark_static(made, dim)
        return made


def _named_tuple(kind: str) -> Callable[..., Any]:
    module, _, name = kind.partition(":")
    found = getattr(import_module(module), name) if module.startswith(_PACKAGE) else None
    if not (isinstance(found, type) and issubclass(found, tuple)):
        raise TypeError(f"{kind} is no named tuple of this project")
    return found


def _kind(form: ArgumentForm) -> str:
    match form:
        case TensorForm():
            return f"{form.dtype}{len(form.shape)}"
        case TupleForm() | ListForm():
            return f"({' '.join(map(_kind, form.items))})"
        case LoraForm():
            return "lora"
        case PlainForm(value=bool() | str() | None):
            return repr(form.value)
        case PlainForm():
            return "number"
