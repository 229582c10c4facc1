"""Weights that bitsandbytes, torchao and quanto quantised, read without these libraries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from library_weights import (
    Written,
    four_bits,
    quanto,
    torchao_float8,
    torchao_int4,
    torchao_int8,
    torchao_intx,
)
from safetensors.torch import save_file
from taken_apart import check_columns
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.reordered import ReorderedStorage
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored

ROWS, COLUMNS = 30, 96
WEIGHT = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
X = torch.randn(2, 5, COLUMNS, generator=torch.Generator().manual_seed(1))

FORMS: dict[str, tuple[str, Callable[[Tensor], Written]]] = {
    "nf4": ("nf4", four_bits),
    "nf4, nested": ("nf4", partial(four_bits, nested=True)),
    "nf4, blocks of 128 that end inside rows": ("nf4", partial(four_bits, block=128)),
    "nf4, stored as bfloat16": ("nf4", partial(four_bits, storage=torch.bfloat16)),
    "fp4": ("fp4", partial(four_bits, form="fp4")),
    "int8 of torchao": ("int8", torchao_int8),
    "int8 of torchao, inputs too": ("int8", partial(torchao_int8, dynamic=True)),
    "int8 of torchao, groups": ("int8", partial(torchao_int8, group=32)),
    "int8 of torchao, zero points": ("int8", partial(torchao_int8, zero=5)),
    "float8 of torchao": ("float8_e4m3fn", torchao_float8),
    "intx of torchao": ("intx", partial(torchao_intx, group=32)),
    "intx of torchao, zero points": ("intx", partial(torchao_intx, group=32, zero=-2)),
    "int4 of torchao": ("int4", partial(torchao_int4, group=32)),
    "int8 of quanto": ("int8", quanto),
}


@contextmanager
def opened(folder: Path, written: Written) -> Iterator[dict[str, Stored]]:
    path = folder / "weights.safetensors"
    tensors = {name: each.contiguous() for name, each in written.tensors.items()}
    save_file(tensors, path, metadata=written.notes)
    with open_weights([path], "transformer") as stored:
        yield stored


@pytest.mark.parametrize("name", FORMS)
def test_what_is_kept_stands_for_the_numbers_of_the_file(name: str, tmp_path: Path) -> None:
    form, make = FORMS[name]
    written = make(WEIGHT)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    with opened(tmp_path, written) as stored:
        assert stored.keys() == {"layer.weight"}
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        assert (weight.dtype, weight.shape) == (form, (ROWS, COLUMNS))
        close(weight.rows(3, 29), written.exact[3:29])
        storage = weight.keep(3, 29)
        assert storage.form == form
        close(storage.dequantized(torch.float32), written.exact[3:29])
        close(storage.numbers(torch.tensor([25, 0, 7]), torch.float32), written.exact[[28, 3, 10]])
        if "inputs too" not in name:
            close(weight.keep(0, ROWS).product(X), F.linear(X, written.exact), atol=1e-5)


BLOCKS = {
    "nf4": 64,
    "nf4, nested": 64,
    "nf4, blocks of 128 that end inside rows": None,
    "nf4, stored as bfloat16": 64,
    "fp4": 64,
    "int8 of torchao, groups": 32,
    "int8 of torchao, zero points": 1,
    "float8 of torchao": 1,
    "intx of torchao": 32,
    "intx of torchao, zero points": 32,
    "int4 of torchao": 32,
}


@pytest.mark.parametrize("name", FORMS)
def test_columns_are_taken_apart_where_blocks_end(name: str, tmp_path: Path) -> None:
    written = FORMS[name][1](torch.cat((WEIGHT, WEIGHT), dim=1))
    with opened(tmp_path, written) as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        storage = weight.keep(2, ROWS)
        check_columns(storage, written.exact[2:], BLOCKS.get(name, 16))
        if name.startswith("nf4, nested"):
            reordered = ReorderedStorage(storage, torch.arange(ROWS - 2).flip(0))
            check_columns(reordered, written.exact[2:].flip(0), 64)


@pytest.mark.parametrize("dynamic", [False, True])
def test_torchao_tells_whether_inputs_are_quantised(dynamic: bool, tmp_path: Path) -> None:
    with opened(tmp_path, torchao_int8(WEIGHT, dynamic=dynamic)) as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        storage = weight.keep(0, ROWS)
        assert isinstance(storage, Int8Storage)
        assert storage.quantizes_inputs == dynamic


@pytest.mark.parametrize("name", FORMS)
def test_it_takes_no_more_memory_than_the_file(name: str, tmp_path: Path) -> None:
    written = FORMS[name][1](torch.randn(256, 1024))
    with opened(tmp_path, written) as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        held = sum(each.nbytes for each in weight.keep(0, 256).buffers())
    assert held <= 1.05 * sum(each.nbytes for each in written.tensors.values())


STATE = "layer.weight.quant_state.bitsandbytes__nf4"


def changed(written: Written, **settings: Any) -> dict[str, Tensor]:
    state = json.loads(bytes(written.tensors[STATE].tolist())) | settings
    return {STATE: torch.tensor([*json.dumps(state).encode()], dtype=torch.uint8)}


PLAIN, NESTED = four_bits(WEIGHT), four_bits(WEIGHT, nested=True)


@pytest.mark.parametrize(
    ("written", "tensors", "reason"),
    [
        (PLAIN, {"layer.weight.absmax": None}, r"layer\.weight\.absmax: is missing \(nf4\)"),
        (PLAIN, {"layer.weight.quant_map": None}, r"layer\.weight\.quant_map: is missing \(nf4\)"),
        (PLAIN, {"layer.weight": None}, r"layer\.weight: is missing \(nf4\)"),
        (
            PLAIN,
            {"layer.weight.quant_map": torch.ones(15)},
            r"layer\.weight\.quant_map: F32 \[15\] must be 16 .*\(nf4\)",
        ),
        (
            PLAIN,
            {"layer.weight.absmax": torch.full((45,), torch.nan)},
            r"layer\.weight\.absmax: must be finite \(nf4\)",
        ),
        (PLAIN, {"layer.weight.absmax": torch.ones(44)}, r"absmax: F32 \[44\] must be 45 floating"),
        (PLAIN, {STATE: torch.tensor([*b"{nf4"]).byte()}, r"bitsandbytes__nf4: not valid JSON"),
        (PLAIN, {STATE: torch.ones(3)}, r"bitsandbytes__nf4: F32 of 12 bytes must be JSON"),
        (PLAIN, changed(PLAIN, blocksize=0), r"bitsandbytes__nf4: blocksize=0 must be at least 1"),
        (PLAIN, changed(PLAIN, blocksize="64"), r"blocksize='64' must be at least 1 \(nf4\)"),
        (PLAIN, changed(PLAIN, shape=[30, 95]), r"layer\.weight: has 2880 numbers, which are not"),
        (PLAIN, changed(PLAIN, shape=None), r"layer\.weight: has 2880 numbers.* shape=None"),
        (PLAIN, changed(PLAIN, shape=[320, 9]), r"layer\.weight: \[320, 9\] must have an even"),
        (NESTED, {"layer.weight.nested_absmax": None}, r"absmax: U8 \[45\] must be 45 floating"),
        (NESTED, {"layer.weight.nested_quant_map": None}, r"nested_quant_map: is missing \(nf4\)"),
        (NESTED, changed(NESTED, nested_blocksize=0), r"nested_blocksize=0 must be at least 1"),
        (NESTED, changed(NESTED, nested_offset=None), r"nested_offset=None must be a finite"),
    ],
)
def test_a_damaged_4_bit_weight_is_refused_by_name(
    written: Written, tensors: dict[str, Tensor | None], reason: str, tmp_path: Path
) -> None:
    both = {**written.tensors, **tensors}
    found = {name: each for name, each in both.items() if each is not None}
    with (
        pytest.raises(InvalidCheckpoint, match=reason),
        opened(tmp_path, written._replace(tensors=found)),
    ):
        pass


def noted(written: Written, **settings: Any) -> Written:
    note = json.loads(written.notes["layer.weight"]) | settings
    return written._replace(notes=written.notes | {"layer.weight": json.dumps(note)})


def lacking(written: Written, name: str) -> Written:
    return written._replace(tensors={k: v for k, v in written.tensors.items() if k != name})


INT8 = torchao_int8(WEIGHT)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (lacking(INT8, "layer._weight_scale"), r"layer\._weight_scale is missing \(Int8Tensor\)"),
        (noted(INT8, _tensor_data_names=["qdata"]), r"layer\.weight: qdata or scale is missing"),
        (noted(INT8, _tensor_data_names=3), r"layer\.weight: _data and _tensor_data_names are mis"),
        (noted(INT8, _type="AffineQuantizedTensor"), r"torchao's AffineQuantizedTensor is not sup"),
        (noted(INT8, _type=[1]), r"layer\.weight: torchao's \[1\] is not supported"),
        (INT8._replace(notes=INT8.notes | {"layer.weight": "{"}), r"layer\.weight: not valid JSON"),
        (noted(INT8, _type="Float8Tensor"), r"layer\.weight: qdata is I8; F8_E4M3, F8_E5M2"),
        (
            noted(torchao_int4(WEIGHT, group=32), _type="IntxUnpackedToInt8Tensor"),
            r"layer\._weight_scale: F32 \[3, 30\] must be numbers for groups",
        ),
        (lacking(quanto(WEIGHT), "layer.weight._scale"), r"layer\.weight\._data: I8 must be one"),
    ],
)
def test_a_weight_that_does_not_fit_what_is_noted_is_refused_by_name(
    written: Written, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidCheckpoint, match=reason), opened(tmp_path, written):
        pass


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "quanto"])
def test_configs_of_these_libraries_are_accepted(method: str, tmp_path: Path) -> None:
    config = {"quant_method": method, "llm_int8_skip_modules": ["lm_head"], "load_in_4bit": True}
    (tmp_path / "transformer").mkdir()
    text = json.dumps({"quantization_config": config})
    (tmp_path / "transformer" / "config.json").write_text(text)
    assert quantization_settings(tmp_path, "transformer") == {}
