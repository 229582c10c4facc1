"""Whole requests of every family and task, on a device that notices what makes the host wait."""

from typing import Any

import pytest
from device_process import run_on_device
from support import CASES, Cell

Report = dict[str, Any]

_UNIPC = "diffusers.schedulers.scheduling_unipc_multistep.UniPCMultistepScheduler"
_KEPT = "UnmaskedLatents adds noise for a timestep that the solver keeps on the host"
_SOLVE = "UniPC makes a small linear system of Python numbers in every step"
ALWAYS = {
    f"copy to the device: {_UNIPC}.multistep_uni_p_bh_update": _SOLVE,
    f"copy to the device: {_UNIPC}.multistep_uni_c_bh_update": _SOLVE,
    f"read-back: {_UNIPC}.multistep_uni_c_bh_update": "torch checks how it was solved",
    "copy to the device: diffusers.schedulers.scheduling_pndm.PNDMScheduler.add_noise": _KEPT,
    "copy to the device: "
    "diffusers.schedulers.scheduling_euler_discrete.EulerDiscreteScheduler.add_noise": _KEPT,
}
"""What may wait in any evaluation, and why."""

_NEW = "the rotary table of a size that has not been seen before"
_MADE_THERE = "the schedule that a library's pipeline made on the device, for its previews"
FIRST = {
    "copy to the device: multimodal_gen.runtime.models.dits.flux.model._positions": _NEW,
    "copy to the device: multimodal_gen.runtime.models.dits.qwen_image.model.positions_of": _NEW,
    "copy to the device: multimodal_gen.runtime.stages.rows.join_padded": (
        "the lengths of the rows of a batch that has just come together"
    ),
    "read-back: multimodal_gen.runtime.models.schedulers.x0._flow_estimator": _MADE_THERE,
    "read-back: multimodal_gen.runtime.models.schedulers.x0._noise_levels": _MADE_THERE,
}
"""What may wait when a batch has just come together, and why."""

OWN_LOOP = "fallback"
"""Its evaluations are diffusers' own code, which waits as it pleases."""


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    reports: dict[str, Report] = run_on_device("see_on_device.py", "--json", "generations")
    return reports


@pytest.fixture
def report(reports: dict[str, Report], cell: Cell) -> Report:
    report = reports[" ".join(cell)]
    assert "error" not in report, report["error"]
    return report


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_a_request_runs_from_its_text_to_its_pixels_and_previews(
    report: Report, cell: Cell
) -> None:
    assert report["previewed"]


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_no_evaluation_waits_for_the_device_but_for_a_known_reason(
    report: Report, cell: Cell
) -> None:
    later, first = _own(report["later"], cell), _own(report["first"], cell)
    assert later <= ALWAYS.keys()
    assert first <= ALWAYS.keys() | FIRST.keys()


def test_what_may_wait_does(reports: dict[str, Report]) -> None:
    """Else it need not be allowed any more."""
    seen = {
        wait for report in reports.values() for when in ("first", "later") for wait in report[when]
    }
    assert ALWAYS.keys() | FIRST.keys() <= seen


def _own(waits: dict[str, int], cell: Cell) -> set[str]:
    """Without those of a loop that is not this project's."""
    if cell[0] != OWN_LOOP:
        return {*waits}
    return {wait for wait in waits if not wait.split(": ")[1].startswith("diffusers.")}
