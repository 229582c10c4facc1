"""`bench --device cuda` in its smallest form, on the CPU: that nothing breaks before a GPU is
reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from stand_in_graphs import StandInGraphs

from multimodal_gen.benchmarks.device import runner
from multimodal_gen.benchmarks.device.measures import measured
from multimodal_gen.benchmarks.device.roofline import Roofline, counted_products
from multimodal_gen.benchmarks.device.runner import measure_device
from multimodal_gen.benchmarks.device.sections import MODELS, SECTIONS, WHOLE_S
from multimodal_gen.benchmarks.report import Figure, Report, single
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.runtime.models.captured import graph_cache

OF_A_MODEL = {
    "first",
    "evaluation",
    "host",
    "operations",
    "waits",
    "memory",
    "attention",
    "roofline",
    "decode",
    "decode_memory",
}


@pytest.fixture
def few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def figures_of(section: str) -> dict[str, Figure]:
    found = measured(section, torch.device("cpu"), "tiny")
    return {figure.name: figure for figure in found}


@pytest.mark.usefixtures("few_threads")
@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_random_weights_is_measured_from_its_first_evaluation_to_its_pixels(
    model: str,
) -> None:
    figures = figures_of(model)
    assert figures.keys() == {f"{model}/{name}" for name in OF_A_MODEL}
    assert figures[f"{model}/evaluation"].value > 0
    assert figures[f"{model}/operations"].value > 50
    assert figures[f"{model}/attention"].value > 0
    assert figures[f"{model}/roofline"].value > 0


@pytest.mark.usefixtures("few_threads")
@pytest.mark.parametrize("check", ["pictures", "products", "recovery", "streamed"])
def test_a_check_passes_where_it_can_not_fail(check: str) -> None:
    figures = figures_of(check)
    assert figures
    assert [figure.name for figure in figures.values() if figure.met is False] == []


@pytest.mark.usefixtures("few_threads")
def test_captured_evaluations_are_compared_with_eager_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert figures_of("graphs") == {}  # a CPU has none
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: StandInGraphs())
    figures = figures_of("graphs")
    assert [figure.name for figure in figures.values() if figure.met is False] == []
    assert figures["graphs/count"].value == 3
    assert figures["graphs/8/captured"].value > 0


def test_all_sections_but_the_engines_are_tested_here() -> None:
    checks = {"pictures", "products", "recovery", "streamed", "graphs", "cancel"}
    assert {*MODELS, *checks} == SECTIONS.keys()
    assert WHOLE_S < 600


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_the_reason_is_all_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cuda"]) == 2
    assert "device='cuda'" in capsys.readouterr().err.splitlines()[-1]


def test_sections_that_are_late_broken_or_not_begun_cost_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {"no such section": 600.0, "flux": 0.01, "wan": 0.0}
    monkeypatch.setattr(runner, "SECTIONS", limits)
    monkeypatch.setattr(runner, "_DESCRIBING_S", 600.0)
    report = measure_device("cpu", "tiny", lambda what: None, tuple(limits), seconds=1200.0)
    assert report.failures.keys() == {"no such section", "flux", "wan"}
    assert "KeyError" in report.failures["no such section"]
    assert "ended after" in report.failures["flux"]
    assert "no time was left" in report.failures["wan"]
    assert report.environment["device"]


def test_a_table_says_what_is_missing_from_it() -> None:
    figure = single("flux/evaluation", "ms of an evaluation", 12.0, "ms")
    table = Report(environment={}, figures=[figure], failures={"wan": "ended after 9 s"}).table()
    assert "wan: NOT MEASURED: ended after 9 s" in table


def test_products_are_counted_inside_what_consists_of_them() -> None:
    x, weight = torch.ones(6, 8), torch.ones(4, 8)
    qkv = torch.ones(3, 1, 2, 5, 8)
    with torch.inference_mode(), counted_products() as products:
        torch.nn.functional.linear(x, weight).relu()
        torch.nn.functional.scaled_dot_product_attention(*qkv)
    operations, moved = zip(*products, strict=True)
    assert operations == (2 * 6 * 4 * 8, 2 * 2 * 5 * 5 * 8 * 2)
    assert moved[0] == 4 * (6 * 8 + 4 * 8 + 6 * 4)
    # The first is bound by its arithmetic, the second by memory.
    assert Roofline(1.0, 4.0).seconds([(8, 16), (2, 80)]) == 8 + 20
