"""What the registry says that each family does is done, and by a test."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engineless import load, run
from parity import check_parity, take_pictures
from rank_processes import run_ranks
from support import CASES, CELLS, Cell

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams

Checkpoints = Callable[..., Path]

NATIVE = {family.name for family in FAMILIES if family.ulysses}
HEADS = 3
"""Two ranks share them unevenly."""


def test_every_cell_of_the_table_has_a_case() -> None:
    assert CASES.keys() == CELLS


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_each_task_of_each_family_is_done_as_diffusers_does_it(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    case = CASES[cell]
    for module, name, value in case.patches:
        monkeypatch.setattr(f"{module}.{name}", value)
    folder = checkpoints(case.checkpoint)
    pipeline = load(folder)
    assert pipeline.family.name == cell[0]
    assert cell[1] in pipeline.tasks
    call = case.call
    check_parity(pipeline, folder, stock=case.stock, stock_call=case.stock_call, **call)


@pytest.fixture(scope="module")
def expected(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a request to each native transformer, and what one rank makes of it."""
    folder = tmp_path_factory.mktemp("expected")
    described = {}
    for (family, _), case in CASES.items():
        if family not in NATIVE or case.patches:
            continue
        checkpoint = checkpoints(case.checkpoint, heads=HEADS)
        pipeline = load(checkpoint)
        name = type(pipeline.denoiser_module).__name__
        if name in described:
            continue
        call = case.call
        pictures = take_pictures(call)
        np.save(folder / f"{name}.npy", run(pipeline, SamplingParams(**call), pictures).pixels)
        for kind, picture in pictures.items():
            np.save(folder / f"{name}.{kind}.npy", picture)
        described[name] = {
            "folder": str(checkpoint),
            "params": call,
            "pictures": {kind: str(folder / f"{name}.{kind}.npy") for kind in pictures},
            "expected": str(folder / f"{name}.npy"),
        }
    path = folder / "cases.json"
    path.write_text(json.dumps(described))
    return path


@pytest.mark.parametrize("world_size", [2, 4], ids=["2 ranks", "4 ranks"])
def test_each_native_transformer_makes_the_same_on_ranks_as_alone(
    expected: Path, tmp_path: Path, world_size: int
) -> None:
    outputs = run_ranks("family_ranks.py", world_size, tmp_path / "store", str(expected))
    apart = json.loads(outputs[0])
    assert len(apart) >= 6
    assert {name: pixels for name, pixels in apart.items() if pixels > 1} == {}
