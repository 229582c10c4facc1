"""Weights in GGUF's blocks: the numbers are ggml's, and the blocks stay in the file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from mapped_files import mapped
from single_files import gguf_writer
from taken_apart import check_columns
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.gguf import blocks as gguf_blocks
from multimodal_gen.runtime.layers.quantized.gguf.storage import GgufStorage
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors
from multimodal_gen.runtime.loader.tensors.stored import Quantized

PLAIN = {"F64", "F32", "F16", "BF16"}
COLUMNS = 512


def known() -> list[str]:
    """Block types that the gguf package can dequantise."""
    found = []
    for kind in gguf.GGMLQuantizationType:
        _, size = gguf.GGML_QUANT_SIZES[kind]
        try:
            gguf.quants.dequantize(np.zeros(size, np.uint8), kind)
        except NotImplementedError:
            continue
        found.append(kind.name)
    return [name for name in found if name not in PLAIN]


def random_blocks(kind: str, rows: int, columns: int = COLUMNS) -> np.ndarray:
    """Any bytes: scales that overflow or are no numbers too."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return np.random.default_rng(0).integers(0, 256, (rows, columns // block * size), np.uint8)


def reference(kind: str, blocks: np.ndarray) -> Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]))


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether all numbers are the same, and what is no number is none in both."""
    no_numbers = one.isnan()
    bits = (each[~no_numbers].view(torch.int32) for each in (one, other))
    return torch.equal(no_numbers, other.isnan()) and torch.equal(*bits)


def test_every_type_that_the_package_knows_is_unpacked() -> None:
    assert set(known()) == set(gguf_blocks.FORMS)


@pytest.mark.parametrize("kind", known())
def test_numbers_are_bit_equal_to_the_packages(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = random_blocks(kind, 37)
    wanted = reference(kind, blocks)
    storage = GgufStorage(kind, torch.from_numpy(blocks), COLUMNS)
    assert same_bits(storage.dequantized(torch.float32), wanted)
    monkeypatch.setitem(gguf_blocks._STEP, "cpu", 3 * 256)
    assert same_bits(storage.dequantized(torch.float32), wanted)
    chosen = torch.tensor([36, 0, 0, 5])
    assert same_bits(storage.numbers(chosen, torch.float32), wanted[chosen])
    narrow = storage.numbers(slice(3, 9), torch.bfloat16)
    assert torch.equal(narrow.nan_to_num(), wanted[3:9].bfloat16().nan_to_num())


def sane(kind: str, rows: int, columns: int = COLUMNS) -> np.ndarray:
    """Blocks whose numbers are of an ordinary size: bytes that make small scales."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return np.random.default_rng(1).integers(0, 40, (rows, columns // block * size), np.uint8)


@pytest.mark.parametrize("kind", known())
def test_the_product_is_that_of_the_numbers(kind: str) -> None:
    blocks = sane(kind, 24)
    weight = GgufStorage(kind, torch.from_numpy(blocks), COLUMNS)
    x = torch.randn(2, 3, COLUMNS)
    wanted = F.linear(x.double(), reference(kind, blocks).double())
    error = (weight.product(x) - wanted).norm() / wanted.norm()
    assert error < 1e-5


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q8_0", "IQ4_NL"])
def test_columns_are_taken_apart_where_blocks_end(kind: str) -> None:
    blocks = sane(kind, 24)
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    weight = GgufStorage(kind, torch.from_numpy(blocks), COLUMNS)
    check_columns(weight, reference(kind, blocks), block)


def written(path: Path, **tensors: tuple[str, int, int]) -> Path:
    """A file of matrices: type, rows and columns by name."""
    with gguf_writer(path) as writer:
        for name, (kind, rows, columns) in tensors.items():
            raw = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, sane(kind, rows, columns), raw_dtype=raw)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_blocks_stay_in_the_files_pages_which_nothing_writes_to(tmp_path: Path) -> None:
    file = written(tmp_path / "x.gguf", x=("Q4_K", 64, 4096))
    stored = gguf_tensors(read_header(file))["x"]
    assert isinstance(stored, Quantized)
    weight = KeptWeight([stored.keep(8, 64)], torch.float32)
    weight.product(torch.randn(3, 4096), None)
    (blocks,) = weight.buffers()
    (span,) = mapped(file)
    assert blocks.data_ptr() in span
    assert owned_kilobytes(file) == 0


def owned_kilobytes(file: Path) -> int:
    """Size of the pages of this process that are copies of the file's."""
    owned, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Anonymous:"):
            owned += int(line.split()[1])
    return owned


def test_rows_that_share_blocks_are_read_as_numbers(tmp_path: Path) -> None:
    blocks = random_blocks("Q8_0", 1, 96)
    with gguf_writer(tmp_path / "x.gguf") as writer:
        writer.add_array("comfy.gguf.orig_shape.x", [6, 16])
        writer.add_tensor("x", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    stored = gguf_tensors(read_header(tmp_path / "x.gguf"))["x"]
    assert not isinstance(stored, Quantized)
    whole = reference("Q8_0", blocks).view(6, 16)
    for start, stop in ((0, 6), (2, 4), (1, 2), (1, 6), (3, 3)):
        assert same_bits(stored.rows(start, stop), whole[start:stop].contiguous())


def test_a_type_that_nobody_can_unpack_is_named(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_K
    _, size = gguf.GGML_QUANT_SIZES[kind]
    with gguf_writer(tmp_path / "x.gguf") as writer:
        writer.add_tensor("blk", np.zeros((2, size), np.uint8), raw_dtype=kind)
    with pytest.raises(InvalidCheckpoint, match=r"x\.gguf: blk is Q8_K, which can't be unpacked"):
        gguf_tensors(read_header(tmp_path / "x.gguf"))
