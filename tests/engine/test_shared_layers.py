"""Shares of layers that tensor ranks have: together they are the whole layer, in every form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from integer_weights import int8, int8_rotated
from quantized_weights import float8, nvfp4, written
from torch import Tensor, nn

from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.runtime.distributed.mesh import Axis
from multimodal_gen.runtime.distributed.sequence import SequenceParallel
from multimodal_gen.runtime.distributed.tensor import TensorParallel
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.lora import LoraRows, LoraUse
from multimodal_gen.runtime.layers.lora_forms import Decomposed, Hadamard, Kronecker
from multimodal_gen.runtime.layers.lora_terms import Difference, LowRank, Term
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.storage import count_numbers
from multimodal_gen.runtime.layers.tensor_parallel.parts import TensorParts
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.stored import Stored
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer

HEADS, WIDTH, MLP, DIM = 5, 32, 96, 64
UNITS = (WIDTH, WIDTH, WIDTH, 1)
INNER = HEADS * WIDTH
RANKS = [2, 3, 4, 8]


class Alone(TensorParallel):
    """One rank of a group whose others are not there: what is added up is only its own."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(Axis(rank, size))

    def sum(self, part: Tensor) -> Tensor:
        return part

    def largest(self, part: Tensor) -> Tensor:
        return torch.full_like(part, 4.0)  # of the whole row; all that matters is that it is one


class Pair(nn.Module):
    """A fused column, and a row that takes its last output and its first."""

    keep_exact: ClassVar = ("nothing",)

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.column = parts.column(DIM, (INNER, INNER, INNER, MLP), unit=UNITS)
        self.row = parts.row((INNER, MLP), DIM, unit=(WIDTH, 1))
        self.widths = (*[WIDTH * parts.heads(HEADS)] * 3, parts.features(MLP))


def sequence() -> SequenceParallel:
    return SequenceParallel(select_attention("sdpa"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


NAMES = {
    "column.weight": ("q.weight", "k.weight", "v.weight", "mlp.weight"),
    "column.bias": ("q.bias", "k.bias", "v.bias", "mlp.bias"),
    "row.weight": ("out.weight",),
    "row.bias": ("out.bias",),
}
WEIGHTS = {
    **{f"{name}.weight": random(INNER, DIM, seed=at) / 8 for at, name in enumerate("qkv")},
    "mlp.weight": random(MLP, DIM, seed=4) / 8,
    "out.weight": random(DIM, INNER + MLP, seed=5) / 16,
    **{f"{name}.bias": random(INNER, seed=at) for at, name in enumerate("qkv")},
    "mlp.bias": random(MLP, seed=6),
    "out.bias": random(DIM, seed=7),
}


def filled(parts: Parts, stored: Mapping[str, Stored], **options: Any) -> Pair:
    with torch.device("meta"):
        module = Pair(parts).requires_grad_(False)
    fill(module, stored, NAMES, name="transformer", device=torch.device("cpu"), **options)
    return module


def shares(size: int, stored: Mapping[str, Stored], **options: Any) -> list[Pair]:
    return [
        filled(TensorParts(sequence(), Alone(rank, size)), stored, **options)
        for rank in range(size)
    ]


def run(module: Pair, x: Tensor, inputs: Tensor, lora: LoraRows | None) -> tuple[Tensor, Tensor]:
    return module.column(x, lora), module.row(inputs, lora)


def check(whole: Pair, parts: list[Pair], lora: LoraRows | None = None) -> None:
    """Compare what the whole computes with what the shares do, put together."""
    x, inputs = random(2, 3, DIM, seed=8), random(2, 3, INNER + MLP, seed=9)
    attended, mlp = inputs.split_with_sizes([INNER, MLP], dim=-1)
    outputs, total, heads, features = [], torch.zeros(2, 3, DIM), 0, 0
    for part in parts:
        own = (part.widths[0], part.widths[-1])
        mine = (attended.narrow(-1, heads, own[0]), mlp.narrow(-1, features, own[1]))
        column, row = run(part, x, torch.cat(mine, dim=-1), lora)
        outputs.append(column.split_with_sizes(list(part.widths), dim=-1))
        total += row
        heads, features = heads + own[0], features + own[1]
    column, row = run(whole, x, inputs, lora)
    assert (heads, features) == (INNER, MLP)
    columns = [torch.cat(each, dim=-1) for each in zip(*outputs, strict=True)]
    assert (torch.cat(columns, dim=-1) - column).norm() <= 1e-5 * column.norm()
    assert (total - row).norm() <= 1e-5 * row.norm()


def held() -> dict[str, Stored]:
    return {name: HeldTensor(weight) for name, weight in WEIGHTS.items()}


@pytest.mark.parametrize("size", RANKS)
def test_shares_of_a_layer_are_together_the_whole(size: int) -> None:
    check(filled(Parts(sequence()), held()), shares(size, held()))


@pytest.mark.parametrize("size", RANKS)
def test_a_rank_holds_its_share_alone(size: int) -> None:
    for part in shares(size, held()):
        assert part.column.weight is not None
        assert part.row.weight is not None
        heads, features = part.widths[0], part.widths[-1]
        assert part.column.weight.shape == (3 * heads + features, DIM)
        assert part.row.weight.shape == (DIM, heads + features)
        assert part.row.weight.untyped_storage().nbytes() == 4 * part.row.weight.numel()


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_holds_its_part_of_what_is_shared_and_the_rest(size: int) -> None:
    """Of a transformer whose heads and features are dealt evenly."""
    config = FluxConfig(
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=8,
        axes_dims_rope=(8, 4, 4),
    )
    with torch.device("meta"):
        shapes = FluxTransformer(config, Parts(sequence())).state_dict()
    weights = {name: HeldTensor(torch.zeros(each.shape)) for name, each in shapes.items()}
    with torch.device("meta"):
        module = FluxTransformer(config, TensorParts(sequence(), Alone(0, size)))
    fill(module, weights, {n: (n,) for n in shapes}, name="transformer", device=torch.device("cpu"))
    whole = sum(each.numel() for each in shapes.values())
    shared = config.shape.all_weights
    biases = sum(each.numel() for name, each in shapes.items() if name.endswith(".bias"))
    assert count_numbers(module) <= shared / size + (whole - shared)
    assert count_numbers(module) >= shared / size + (whole - shared) - biases


def terms() -> Iterator[tuple[str, Term]]:
    """LoRAs of a whole layer, of some of its outputs, and differences of full size."""
    down, up = random(4, DIM, seed=10), random(3 * INNER, 4, seed=11)
    yield "column", LowRank(down, up, random(3 * INNER, seed=12), 0.5, 0)
    yield "column", LowRank(down, up[:INNER], None, 0.5, INNER)
    yield "column", Difference(random(MLP, DIM, seed=13), None, 3 * INNER)
    yield "column", Difference(None, random(2 * INNER, seed=14), INNER // 2)
    norms = random(3 * INNER, seed=21).abs() + 1
    yield "column", Decomposed(LowRank(down, up, None, 0.5, 0), norms, by_input=False)
    block = LowRank(random(2, DIM // 4, seed=22), random(3 * INNER // 8, 2, seed=23), None, 1.0, 0)
    yield "column", Kronecker(random(8, 4, seed=24), block, 0.5)
    yield "column", Hadamard(factors(2, DIM), factors(INNER, 2), 0.5, INNER)
    down, up = random(4, INNER + MLP, seed=15), random(DIM, 4, seed=16)
    yield "row", LowRank(down, up, random(DIM, seed=17), 0.5, 0)
    yield "row", LowRank(down, up[:8], None, 0.5, 16)
    yield "row", Difference(random(DIM, INNER + MLP, seed=18), random(DIM, seed=19), 0)
    yield "row", Difference(None, random(DIM, seed=20), 0)
    block = Difference(random(DIM // 8, (INNER + MLP) // 4, seed=25), None, 0)
    yield "row", Kronecker(random(8, 4, seed=26), block, 0.5)
    yield "row", Hadamard(factors(2, INNER + MLP), factors(DIM, 2), 0.5)


def factors(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    return random(rows, columns, seed=27), random(rows, columns, seed=28)


@pytest.mark.parametrize("rows", [[0, 1], [1]], ids=["all rows", "one row"])
@pytest.mark.parametrize("size", RANKS)
def test_shares_of_a_lora_are_together_the_whole(size: int, rows: list[int]) -> None:
    whole, parts = filled(Parts(sequence()), held()), shares(size, held())
    uses = [[LoraUse(key, 0.7) for key in range(13)] if row in rows else [] for row in range(2)]
    for key, (name, term) in enumerate(terms()):
        for module in (whole, *parts):
            layer = getattr(module, name)
            if (own := layer.part_of(term)) is not None:
                layer.loras.add(key, [own.to(torch.device("cpu"))])
    check(whole, parts, LoraRows(uses, torch.device("cpu")))


FORMS = {
    "int8": int8,
    "ConvRot": lambda weight: int8_rotated(weight, 64),
    "float8": float8,
    "float8 in blocks": lambda weight: float8(weight, (32, 64)),
    "nvfp4": nvfp4,
}


@pytest.mark.parametrize("size", RANKS)
@pytest.mark.parametrize("form", FORMS)
def test_shares_of_what_a_file_has_quantised_are_together_the_whole(
    form: str, size: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "multimodal_gen.runtime.layers.quantized.int8.has_int8_product", lambda values: False
    )
    tensors = {}
    for name, weight in WEIGHTS.items():
        layer = name.removesuffix(".weight")
        made = FORMS[form](weight).tensors if name.endswith(".weight") else None
        tensors |= {name: weight} if made is None else {f"{layer}.{p}": t for p, t in made.items()}
    with open_weights([written(tmp_path, tensors)], "transformer") as stored:
        parts = shares(size, stored)
        check(filled(Parts(sequence()), stored), parts)
    assert all(part.row.kept is not None for part in parts)


@pytest.mark.parametrize("size", RANKS)
@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_shares_of_what_is_quantised_when_loaded_are_together_the_whole(
    form: Quantization, size: int
) -> None:
    how = WhenLoaded(form, quantizes_inputs=False)
    parts = shares(size, held(), quantization=how)
    check(filled(Parts(sequence()), held(), quantization=how), parts)
    for part in parts:
        assert part.row.kept is not None
        assert part.column.kept is not None or part.column(random(1, DIM)).shape[-1] == 0


@pytest.mark.parametrize("size", RANKS)
def test_numbers_that_are_kept_narrow_are_shared_too(size: int) -> None:
    narrow = {name: HeldTensor(w.bfloat16(), dtype="BF16") for name, w in WEIGHTS.items()}
    options = {"dtype": torch.float32, "keep_narrow": True}
    check(filled(Parts(sequence()), narrow, **options), shares(size, narrow, **options))


@pytest.mark.parametrize("size", RANKS)
def test_inputs_of_int8_products_have_one_scale_on_all_ranks(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the integers are those of one rank: 127 here stands for 4 everywhere."""
    place = "multimodal_gen.runtime.layers.quantized.int8.has_int8_product"
    monkeypatch.setattr(place, lambda values: True)
    how = WhenLoaded("int8", quantizes_inputs=True)
    whole = filled(Parts(sequence()), held(), quantization=how)
    parts = shares(size, held(), quantization=how)
    (storage,) = (each for each in whole.row.modules() if isinstance(each, Int8Storage))
    storage.largest = Alone(0, 1).largest
    check(whole, parts)


@pytest.mark.parametrize(("columns", "block"), [(64, 16), (24, 8), (20, 20)])
def test_columns_of_int8_that_ranks_share_suit_the_same_products(columns: int, block: int) -> None:
    """A GPU multiplies integers in units of 8: a rank that could not would leave others waiting."""
    values, scales = torch.ones(8, columns, dtype=torch.int8), torch.ones(8, 1)
    assert Int8Storage(values, scales, quantizes_inputs=True).block == block
