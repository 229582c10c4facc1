"""`multimodal-gen bench` in its smallest form: that it measures, not how fast anything is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from multimodal_gen.benchmarks.measures import MEASURES
from multimodal_gen.benchmarks.names import LONG, MeasureName
from multimodal_gen.benchmarks.profiling.profile import shares
from multimodal_gen.benchmarks.profiling.spans import TraceSpan, gaps, named_spans, own_times
from multimodal_gen.benchmarks.report import Figure, Report, ratio
from multimodal_gen.benchmarks.workload import Workload
from multimodal_gen.configs.families.flux import FLUX
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.messages.model_info import ModelInfo

MEASURED = [name for name in MEASURES if name not in ("cold_start", *LONG)]
FIGURES = {
    "one_picture",
    "concurrent/batch",
    "concurrent/single",
    "short_job/same_size",
    "short_job/larger",
    "host_gap/1",
    "host_gap/1/plans",
    "host_gap/8",
    "host_gap/8/plans",
    "help/help",
    "help/generate",
    "memory",
    *(
        f"qualities/{name}{what}"
        for name in ("high", "fast")
        for what in ("", "/evaluations", "/psnr")
    ),
    "options/bfloat16",
    "options/int8",
}


@pytest.fixture(scope="module")
def measured(
    checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The report of one run, once each, of all but the cold start, which takes longest."""
    path = tmp_path_factory.mktemp("bench") / "report.json"
    model = _with_small_defaults(checkpoints("flux-schnell"), path.parent / "model")
    arguments = ["--device", "cpu", "--repeats", "1", "--model-path", str(model)]
    assert main(["bench", *arguments, "--json", str(path), "--only", *MEASURED]) == 0
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def _with_small_defaults(checkpoint: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint, folder)
    defaults = {"width": 64, "height": 64, "num_inference_steps": 40, "max_sequence_length": 16}
    (folder / "generation_defaults.json").write_text(json.dumps(defaults))
    rule = {"computed": [0, 1, 2], "steps": 4}
    (folder / "step_caches.json").write_text(json.dumps({"high": rule}))
    return folder


def test_everything_is_measured(measured: dict[str, Any]) -> None:
    assert {figure["name"] for figure in measured["figures"]} == FIGURES


def test_figures_are_positive_and_within_their_spread(measured: dict[str, Any]) -> None:
    for figure in measured["figures"]:
        assert figure["value"] > 0, figure
        assert figure["low"] <= figure["value"] <= figure["high"], figure


def test_a_report_says_what_was_measured_under_which_settings(measured: dict[str, Any]) -> None:
    environment = measured["environment"]
    assert (environment["size"], environment["steps"]) == ("64x64", 40)
    assert (environment["device"], environment["dtype"]) == ("cpu", "float32")
    assert {"threads", "torch", "diffusers"} <= environment.keys()


def test_small_checkpoints_have_no_memory_target(measured: dict[str, Any]) -> None:
    (memory,) = [figure for figure in measured["figures"] if figure["name"] == "memory"]
    assert (memory["target"], memory["met"]) == (None, None)


def test_a_quality_computes_the_share_of_evaluations_that_its_rule_says(
    measured: dict[str, Any],
) -> None:
    values = {figure["name"]: figure["value"] for figure in measured["figures"]}
    assert values["qualities/high/evaluations"] == pytest.approx(0.75, abs=0.03)


def test_a_profile_is_a_timeline_of_one_request(
    checkpoints: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = tmp_path / "trace.json", checkpoints("sd3")
    arguments = ["--device", "cpu", "--model-path", str(model)]
    assert main(["bench", *arguments, "--profile", str(path)]) == 0
    events = json.loads(path.read_text())["traceEvents"]
    spans = named_spans(events)
    evaluations = len(spans["predict"])
    assert evaluations == len(spans["guidance"]) > 1
    assert len(spans["plan"]) >= 3
    assert [len(spans[phase]) for phase in ("encode", "decode")] == [1, 1]
    assert sum(event.get("cat") == "gap" for event in events) == evaluations - 1
    assert any(event.get("cat") == "cpu_op" for event in events)
    assert "between plans" in capsys.readouterr().out


def test_the_shares_of_a_profile_add_up_to_the_request() -> None:
    parts = {
        "plan": [(0, 10), (20, 80), (90, 100)],
        "encode": [(1, 9)],
        "denoise": [(21, 79)],
        "predict": [(22, 40), (45, 70)],
        "guidance": [(41, 43)],
        "solver": [(43, 44)],
        "decode": [(90, 100)],
    }
    spans = {name: [TraceSpan(name, *each) for each in found] for name, found in parts.items()}
    rows = {line[:16].strip(): line[16:].split() for line in shares(spans)[1:]}
    assert rows["between plans"][1] == "20.0%"
    assert rows["predict"] == ["0.04", "43.0%", "2"]
    percents = [float(cells[1].rstrip("%")) for cells in rows.values() if len(cells) > 1]
    assert sum(percents) == pytest.approx(100)
    assert [gap.length for gap in gaps(spans["predict"])] == [5]


def test_operations_of_a_profile_count_without_those_inside_them() -> None:
    def event(name: str, ts: float, dur: float, cat: str = "cpu_op") -> dict[str, Any]:
        return {"name": name, "cat": cat, "ts": ts, "dur": dur, "tid": 1}

    events = [event("inner", 2, 3), event("outer", 0, 10), event("outer", 10, 1)]
    assert own_times(events) == {"outer": (8, 2), "inner": (3, 1)}
    kernels = [event("kernel", 5, 7, "kernel"), *events]
    assert own_times(kernels) == {"kernel": (7, 1)}


def test_the_names_that_only_takes_are_those_of_the_measures() -> None:
    assert set(get_args(MeasureName)) == set(MEASURES)


def test_a_measure_that_does_not_exist_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "nothing"]) == 2
    assert "one_picture" in capsys.readouterr().err


def test_no_two_jobs_have_the_same_prompt_or_seed() -> None:
    model = ModelInfo(
        name="x",
        family="flux",
        tasks=FLUX.tasks,
        defaults=FLUX.defaults,
        limits=FLUX.limits,
        size_multiple=16,
        parameters=FLUX.parameters,
    )
    requests = Workload(model).requests(100)
    assert (
        len({request.prompt for request in requests})
        == len({request.seed for request in requests})
        == 100
    )


def test_a_ratio_is_of_the_medians_and_spans_the_pairs() -> None:
    figure = ratio("x", "", [1.0, 2.0, 3.0], [1.0, 1.0, 2.0], target=1.0)
    assert (figure.value, figure.low, figure.high) == (2.0, 1.0, 2.0)
    assert figure.met is False


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [(0.9, "at most", True), (1.1, "at most", False), (1.1, "at least", True)],
)
def test_a_target_is_met_on_its_side(value: float, bound: Any, met: bool) -> None:
    figure = Figure(
        name="x", what="", value=value, unit="x", low=value, high=value, target=1.0, bound=bound
    )
    assert figure.met is met


def test_the_table_has_a_line_for_each_figure() -> None:
    figure = ratio("one_picture", "seconds", [1.0], [2.0], target=1.0)
    table = Report(environment={"device": "cpu"}, figures=[figure]).table()
    assert "device cpu" in table
    assert any(line.split()[:3] == ["one_picture", "0.50", "x"] for line in table.splitlines())
    assert "yes" in table
