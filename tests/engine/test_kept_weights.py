"""Weights that keep the form in which a file has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.linear import Linear, PatchLinear
from multimodal_gen.runtime.layers.lora import LoraRows, LoraUse
from multimodal_gen.runtime.layers.lora_terms import LowRank
from multimodal_gen.runtime.layers.quantized import storage
from multimodal_gen.runtime.layers.quantized.storage import (
    KeptWeight,
    PlainStorage,
    Storage,
    count_numbers,
)
from multimodal_gen.runtime.loader.tensors import weights
from multimodal_gen.runtime.loader.tensors.stored import Rearranged, Span, Transposed
from multimodal_gen.runtime.loader.tensors.weights import fill

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class InMemory:
    """A tensor of a file."""

    values: Tensor
    computed = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def dtype(self) -> str:
        return {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}[self.values.dtype]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[start:stop]


class Halves(Storage):
    """Numbers as int8, in units of a half."""

    form = "halves"
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__(*values.shape)
        self.register_buffer("values", values)

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        return self.values[rows].to(dtype) / 2


class InHalves(InMemory):
    """A tensor of a file whose numbers are int8, in units of a half."""

    computed = True

    @property
    def dtype(self) -> str:
        return "F8_E4M3"

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[start:stop].float() / 2

    def keep(self, start: int, stop: int) -> Storage:
        return Halves(self.values[start:stop])


def halves(*shape: int) -> InHalves:
    return InHalves(torch.randint(-9, 9, shape, dtype=torch.int8))


def plain(*shape: int, dtype: torch.dtype = torch.float32) -> InMemory:
    return InMemory(torch.randn(shape).to(dtype))


def filled(layer: nn.Module, **sources: list[Any]) -> nn.Module:
    """`layer` on the meta device, filled as the only module of a component."""
    stored = {
        f"{name}.{i}": each for name, all_of in sources.items() for i, each in enumerate(all_of)
    }
    key_map = {
        f"layer.{name}": tuple(f"{name}.{i}" for i in range(len(all_of)))
        for name, all_of in sources.items()
    }
    whole = nn.ModuleDict({"layer": layer}).requires_grad_(False)
    fill(whole, stored, key_map, name="transformer", dtype=torch.float32, device=CPU)
    return whole["layer"]


def on_meta(kind: Any, *args: Any, **options: Any) -> Any:
    with torch.device("meta"):
        return kind(*args, **options)


def numbers(sources: list[Any]) -> Tensor:
    return torch.cat([each.rows(0, each.shape[0]).float() for each in sources])


@pytest.mark.parametrize(
    ("sources", "forms"),
    [
        ([halves(6, 8)], ("halves",)),
        ([halves(4, 8), halves(2, 8)], ("halves", "halves")),
        ([halves(4, 8), plain(2, 8), halves(6, 8)], ("halves", "float32", "halves")),
        ([plain(4, 8, dtype=torch.bfloat16), halves(2, 8)], ("bfloat16", "halves")),
    ],
)
@pytest.mark.parametrize("kind", ["ours", "library"])
def test_the_parts_of_a_layer_keep_their_forms(
    sources: list[Any], forms: tuple[str, ...], kind: str
) -> None:
    rows, bias = len(numbers(sources)), plain(len(numbers(sources)))
    layer = on_meta(Linear, (rows, 8)) if kind == "ours" else on_meta(nn.Linear, 8, rows)
    layer = filled(layer, weight=sources, bias=[bias])
    assert layer.kept.forms == forms
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(layer(x), F.linear(x, numbers(sources), bias.values))


def test_rows_in_another_order_are_kept_as_well() -> None:
    first, second = halves(6, 8), halves(4, 8)
    inner = Rearranged((Span(first, 3, 6), Span(second, 0, 4), Span(first, 0, 3)), (10, 8))
    outer = Rearranged((Span(inner, 2, 8), Span(inner, 0, 2)), (8, 8))
    layer = filled(on_meta(Linear, (8, 8), bias=False), weight=[outer])
    assert isinstance(layer, Linear)
    assert layer.kept is not None
    assert set(layer.kept.forms) == {"halves"}
    x = torch.randn(2, 8)
    wanted = torch.cat((inner.rows(2, 8), inner.rows(0, 2)))
    torch.testing.assert_close(layer(x), F.linear(x, wanted))


@pytest.mark.parametrize("weight", [plain(6, 8), Transposed(halves(8, 6))])
def test_what_has_no_form_of_its_own_is_read_as_numbers(weight: Any) -> None:
    layer = filled(on_meta(Linear, (6, 8), bias=False), weight=[weight])
    assert isinstance(layer, Linear)
    assert layer.kept is None
    assert torch.equal(layer.weight, weight.rows(0, 6))


def test_the_kernel_of_a_patch_embedding_is_read_as_numbers() -> None:
    weight = InHalves(torch.randint(-9, 9, (6, 2, 2, 2), dtype=torch.int8))
    layer = filled(on_meta(PatchLinear, (6, 2, 2, 2)), weight=[weight], bias=[plain(6)])
    assert isinstance(layer, PatchLinear)
    assert torch.equal(layer.weight, weight.rows(0, 6))


@pytest.mark.parametrize("sources", [[halves(9, 8)], [halves(5, 8), halves(4, 8)]])
def test_an_embedding_of_a_library_keeps_its_form(sources: list[Any]) -> None:
    layer = filled(on_meta(nn.Embedding, 9, 8), weight=sources)
    index = torch.tensor([[8, 0, 3], [3, 4, 5]])
    assert torch.equal(layer(index), numbers(sources)[index])
    assert isinstance(layer, nn.Embedding)
    assert (layer.weight.shape, layer.weight.dtype) == ((9, 8), torch.float32)


@pytest.mark.parametrize(("many", "form"), [(1, ("bfloat16",)), (1 << 20, None)])
def test_a_large_component_keeps_narrow_numbers_in_the_files_pages(
    many: int, form: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MANY_NUMBERS", many)
    source = plain(6, 8, dtype=torch.bfloat16)
    layer = filled(on_meta(Linear, (6, 8), bias=False), weight=[source])
    assert isinstance(layer, Linear)
    assert (layer.kept and layer.kept.forms) == form
    if layer.kept:
        assert next(layer.buffers()).data_ptr() == source.values.data_ptr()
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), F.linear(x, source.values.float()))


def test_the_loras_of_rows_are_added_to_what_is_kept() -> None:
    source = halves(6, 8)
    layer = filled(on_meta(Linear, (6, 8), bias=False), weight=[source])
    assert isinstance(layer, Linear)
    term = LowRank(torch.randn(2, 8), torch.randn(4, 2), None, 0.5, start=1)
    layer.loras.add(1, [term])
    x = torch.randn(3, 5, 8)
    wanted = F.linear(x, numbers([source]))
    wanted[1, :, 1:5] += 0.5 * 2.0 * (x[1] @ term.down.T @ term.up.T)
    rows = LoraRows([(), (LoraUse(1, 2.0),), ()], CPU)
    torch.testing.assert_close(layer(x, rows), wanted)


@pytest.mark.parametrize("kind", [Halves, PlainStorage])
def test_only_a_piece_of_the_numbers_exists_at_a_time(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage._PIECE, "cpu", 24)
    monkeypatch.setattr(storage, "_LEAST_ROWS", 1)
    values = torch.randint(-9, 9, (10, 8), dtype=torch.int8)
    whole = kind(values if kind is Halves else values.bfloat16())
    pieces: list[int] = []
    real = whole.numbers

    def counted(rows: slice, dtype: torch.dtype) -> Tensor:
        found: Tensor = real(rows, dtype)
        pieces.append(len(found))
        return found

    x = torch.randn(2, 3, 8)
    wanted = F.linear(x, whole.dequantized(torch.float32))
    monkeypatch.setattr(whole, "numbers", counted)
    torch.testing.assert_close(whole.product(x), wanted)
    assert pieces == [3, 3, 3, 1]


def test_its_tensors_move_with_the_module() -> None:
    kept = KeptWeight([Halves(torch.zeros(2, 8, dtype=torch.int8))], torch.float32)
    assert kept.to("meta").device.type == "meta"


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"weight\.0 \[6, 4\] \(expected \[6, 8\]"):
        filled(on_meta(Linear, (6, 8), bias=False), weight=[halves(6, 4)])


def test_what_is_kept_counts_as_the_numbers_that_it_stands_for() -> None:
    layer = filled(on_meta(Linear, (6, 8)), weight=[halves(4, 8), plain(2, 8)], bias=[plain(6)])
    assert count_numbers(layer) == 6 * 8 + 6
