"""What the registry says that each family does is done, and by a test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engineless import load
from parity import check_parity
from support import CASES, CELLS, Cell


def test_every_cell_of_the_table_has_a_case() -> None:
    assert CASES.keys() == CELLS


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_each_task_of_each_family_is_done_as_diffusers_does_it(
    checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, cell: Cell
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
