"""The steps of every solver, on a device that notices what makes the host wait."""

from typing import Any

import pytest

from multimodal_gen.configs.solvers import SOLVERS


@pytest.mark.parametrize("name", SOLVERS)
def test_no_step_of_a_solver_waits_for_the_device(seen: dict[str, Any], name: str) -> None:
    of_it = [waits for case, waits in seen["solvers"].items() if case.split()[0] == name]
    assert of_it
    assert not any(of_it)
