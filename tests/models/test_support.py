"""What the registry says that each family does is done, and by a test."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run, start
from lora_forms import make
from loras import LoadedLoras, write
from parity import check_parity, take_pictures
from rank_processes import run_ranks
from support import CASES, CELLS, Case, Cell
from tiny_checkpoints.case import patched

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.loader.lora.targets import Target, targets_in
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

NATIVE = {family.name for family in FAMILIES if family.ulysses}
HEADS = 3
"""Two ranks share them unevenly, and of four one has none."""
ALIKE = ("flux2_dev", "flux_fill", "flux_kontext", "wan_image_to_video")
"""Families with the transformer of another."""
QUANTIZED = ("flux", "wan")
"""Families that are run with weights in int8 as well."""
WAYS: dict[int, list[dict[str, int]]] = {
    2: [{"tensor": 2}, {"ring": 2}],
    4: [{"cfg": 2, "ulysses": 2}, {"ulysses": 2, "tensor": 2}],
}
"""Ways in which so many ranks share the work."""
OTHER_WAYS: list[dict[str, int]] = [
    {"tensor": 2},
    {"ring": 2},
    {"tensor": 4},
    {"ring": 4},
    {"cfg": 2, "tensor": 2},
    {"cfg": 2, "ring": 2},
    {"ulysses": 2, "tensor": 2},
    {"ring": 2, "ulysses": 2},
    {"ring": 2, "tensor": 2},
]


def test_every_cell_of_the_table_has_a_case() -> None:
    assert CASES.keys() == CELLS


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_each_task_of_each_family_is_done_as_diffusers_does_it(
    checkpoints: Checkpoints, cell: Cell
) -> None:
    case = CASES[cell]
    folder = checkpoints(case.checkpoint)
    pipeline = load(folder)
    assert pipeline.family.name == cell[0]
    assert cell[1] in pipeline.tasks
    with patched(case.patches):
        more = {"stock": case.stock, "stock_call": case.stock_call}
        check_parity(pipeline, folder, **more, **case.call)


@pytest.fixture(scope="module")
def expected(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a request to each native transformer, and what one rank makes of it."""
    found: dict[str, Case] = {}
    for cell, case in CASES.items():
        if cell[0] in NATIVE and cell[0] not in ALIKE:
            found.setdefault(cell[0], case)
    return describe(found, checkpoints, tmp_path_factory.mktemp("expected"))


def describe(cases: Mapping[str, Case], checkpoints: Checkpoints, folder: Path) -> Path:
    """Run each on one rank, and some with quantized weights, too."""
    described: dict[str, Any] = {}
    for name, case in cases.items():
        checkpoint = checkpoints(case.checkpoint, heads=HEADS)
        with patched(case.own_patches):
            described[name] = _described(load(checkpoint), case, checkpoint, folder / name)
        if name in QUANTIZED:
            quantized = load(checkpoint, quantization="int8")
            described[f"{name} int8"] = {
                **_described(quantized, case, checkpoint, folder / f"{name} int8"),
                "quantization": "int8",
            }
    path = folder / "cases.json"
    path.write_text(json.dumps(described))
    return path


def _described(
    pipeline: ComposedPipeline, case: Case, checkpoint: Path, folder: Path
) -> dict[str, Any]:
    """A request with a LoRA, and what one rank makes of it. `few` is a LoRA for some queries."""
    call = case.call
    pictures = take_pictures(call)
    name = pipeline.denoisers_now([start(pipeline, SamplingParams(**call), pictures)])[0]
    layers = [each for each in targets_in(pipeline.components[name]) if each[1].takes_rank]
    put_lora(folder / "loras" / "all.safetensors", name, layers)
    queries = [each for each in layers if "q" in each[0].rpartition(".")[2]]
    put_lora(folder / "loras" / "few.safetensors", name, queries or layers[:1])
    loras = [LoadedLoras(pipeline, folder / "loras").use("all")]
    made = run(pipeline, SamplingParams(**call), pictures, loras=loras).pixels
    assert (made != run(pipeline, SamplingParams(**call), pictures).pixels).any()
    np.save(folder / "expected.npy", made)
    for kind, picture in pictures.items():
        np.save(folder / f"{kind}.npy", picture)
    return {
        "folder": str(checkpoint),
        "params": call,
        "pictures": {kind: str(folder / f"{kind}.npy") for kind in pictures},
        "loras": str(folder / "loras"),
        "patches": case.own_patches,
        "expected": str(folder / "expected.npy"),
    }


FORMS = ("lora", "lokr-low", "dora-lora", "loha", "dora-lokr")


def put_lora(path: Path, component: str, layers: list[tuple[str, Target]]) -> None:
    """Of several forms, layer by layer."""
    keys = {}
    for seed, (name, target) in enumerate(layers):
        assert isinstance(target.module, Linear)
        weight = target.module.numbers(range(target.start, target.start + target.shape[0]))
        form = make(FORMS[seed % len(FORMS)], weight.view(target.shape), seed, size=0.1)
        keys |= {f"{component}.{name}.{key}": tensor for key, tensor in form.keys.items()}
    write(path, keys)


@pytest.mark.parametrize(
    "ranks", [2, pytest.param(4, marks=pytest.mark.slow)], ids="{} ranks".format
)
def test_each_native_transformer_makes_the_same_on_ranks_as_alone(
    expected: Path, tmp_path: Path, ranks: int
) -> None:
    assert_same_on_ranks(ranks, WAYS[ranks], expected, tmp_path, 8 + len(QUANTIZED))


@pytest.fixture(scope="module")
def expected_of_all(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for each task of each family."""
    cases = {" ".join(cell): case for cell, case in CASES.items() if cell[0] in NATIVE}
    return describe(cases, checkpoints, tmp_path_factory.mktemp("all"))


@pytest.mark.slow
@pytest.mark.parametrize("way", OTHER_WAYS, ids=str)
def test_each_task_of_native_families_makes_the_same_on_ranks_as_alone(
    expected_of_all: Path, tmp_path: Path, way: dict[str, int]
) -> None:
    assert_same_on_ranks(math.prod(way.values()), [way], expected_of_all, tmp_path, 12)


def assert_same_on_ranks(
    ranks: int, ways: list[dict[str, int]], cases: Path, folder: Path, least: int
) -> None:
    arguments = (str(cases), json.dumps(ways))
    apart = json.loads(run_ranks("family_ranks.py", ranks, folder / "store", *arguments)[0])
    assert len(apart) >= least
    assert {name: pixels for name, pixels in apart.items() if pixels > 1} == {}
