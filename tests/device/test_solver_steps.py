"""The steps of every solver, on a device that notices what makes the host wait."""

from pathlib import Path
from typing import Any

import pytest

import multimodal_gen
from multimodal_gen.configs.solvers import SOLVERS


def test_copies_that_are_not_waited_for_are_made_where_memory_is_pinned() -> None:
    """From pageable memory a GPU's driver waits all the same, which is not seen here."""
    runtime = Path(multimodal_gen.__file__).parent / "runtime"
    asking = {path.name for path in runtime.rglob("*.py") if "non_blocking" in path.read_text()}
    assert asking == {"device_copies.py", "transfers.py", "plan_outcome.py"}


@pytest.mark.parametrize("name", SOLVERS)
def test_no_step_of_a_solver_waits_for_the_device(seen: dict[str, Any], name: str) -> None:
    of_it = [waits for case, waits in seen["solvers"].items() if case.split()[0] == name]
    assert of_it
    assert not any(of_it)
