"""Whole requests of every family and task, on a device that notices what makes the host wait."""

from typing import Any

import pytest
from support import CASES, CELLS, Cell

Report = dict[str, Any]

_MADE_THERE = "the schedule that a library's pipeline made on the device, for its previews"
FIRST = {
    "read-back: multimodal_gen.runtime.models.schedulers.x0._flow_estimator": _MADE_THERE,
    "read-back: multimodal_gen.runtime.models.schedulers.x0._noise_levels": _MADE_THERE,
}
"""What may wait in the first evaluation of a batch, and why."""
_OF_LIBRARY = "diffusers.models.transformers."
ALWAYS = {
    "read-back: "
    f"{_OF_LIBRARY}transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel.forward": (
        "the tokens of each row are sorted by their masks"
    ),
    f"read-back: {_OF_LIBRARY}transformer_hidream_image.MOEFeedForwardSwiGLU.moe_infer": (
        "each expert is called with its own tokens"
    ),
    "read-back: "
    f"{_OF_LIBRARY}transformer_hidream_image.HiDreamImageTransformer2DModel.unpatchify": (
        "the size of each row's image is a tensor"
    ),
    "copy to the device: "
    f"{_OF_LIBRARY}transformer_hidream_image.HiDreamImageTransformer2DModel.patchify": (
        "the size of each row's image is a tensor"
    ),
}
"""What may wait in each evaluation of modules that are not this project's, and why."""

OWN_LOOP = ("fallback", "modular")
"""Their evaluations are diffusers' own code, which waits as it pleases."""
WITHOUT_PREVIEWS = (
    ("modular", "text-to-video"),
    ("modular", "image-to-video"),
    ("modular", "image-edit"),
    ("fallback", "image-to-video"),
    ("fallback", "video-to-video"),
)
"""Their latents have a layout that only the library knows."""


@pytest.fixture
def reports(seen: dict[str, Any]) -> dict[str, Report]:
    reports: dict[str, Report] = seen["generations"]
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
    assert report["previewed"] or cell in WITHOUT_PREVIEWS


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
def test_no_evaluation_waits_for_the_device_but_for_a_known_reason(
    report: Report, cell: Cell
) -> None:
    assert _own(report["later"], cell) <= ALWAYS.keys()
    assert _own(report["first"], cell) <= FIRST.keys() | ALWAYS.keys()


@pytest.mark.parametrize("cell", CASES, ids=" ".join)
@pytest.mark.parametrize("phase", ["encoded", "decoded"])
def test_only_libraries_wait_for_the_device_before_and_after_evaluations(
    report: Report, cell: Cell, phase: str
) -> None:
    assert [wait for wait in report[phase] if "multimodal_gen" in wait] == []


def test_what_may_wait_does(reports: dict[str, Report]) -> None:
    """Else it need not be allowed any more."""
    assert FIRST.keys() <= {wait for report in reports.values() for wait in report["first"]}
    assert ALWAYS.keys() <= {wait for report in reports.values() for wait in report["later"]}


def test_every_family_and_task_is_seen(reports: dict[str, Report]) -> None:
    assert reports.keys() == {" ".join(cell) for cell in CELLS}


def _own(waits: dict[str, int], cell: Cell) -> set[str]:
    """Without those of a loop that is not this project's."""
    if cell[0] not in OWN_LOOP:
        return {*waits}
    return {wait for wait in waits if not wait.split(": ")[1].startswith("diffusers.")}
