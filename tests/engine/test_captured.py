"""Evaluations that are captured as graphs: which, when, and what they read."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stand_in_graphs import StandInGraphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal_gen.runtime.layers.lora import LoraRows, LoraUse, ScaledRows
from multimodal_gen.runtime.models.captured.denoiser import CapturedDenoiser
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.models.captured.graphs import graphs_of
from multimodal_gen.runtime.models.captured.inputs import EvaluationInputs


@pytest.fixture(autouse=True)
def _inferring() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Model:
    """A denoiser that counts what it is called with."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.weight = torch.arange(4.0)

    def __call__(self, tensors: Any, static: Any = None, lora: LoraRows | None = None) -> Tensor:
        latents, timestep, table = tensors["latents"], tensors["timestep"], tensors["table"]
        self.calls.append(len(latents))
        assert len(timestep) == len(latents)
        out: Tensor = latents * self.weight * (static or {}).get("factor", 1)
        out = out + timestep[:, None, None] * table
        if (parts := tensors.get("parts")) is not None:
            out = out + sum(parts)
        for groups in [] if lora is None else lora.groups.values():
            for group in groups:
                if isinstance(group, ScaledRows):
                    out += group.scales[:, None, None]
                else:
                    out[slice(None) if group.rows is None else group.rows] += group.scale
        return out


def inputs(rows: int, seed: int = 0, tokens: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(rows, tokens, 4, generator=generator),
        "timestep": torch.randn(rows, generator=generator),
        "table": torch.randn(1, tokens, 4, generator=generator),
    }


def captured(
    model: Callable[..., Tensor],
    graphs: StandInGraphs,
    *,
    permits: Callable[[LoraRows], bool] = lambda lora: True,
    **bounds: int,
) -> tuple[CapturedDenoiser, GraphCache]:
    cache = GraphCache(graphs, **bounds)
    return CapturedDenoiser(model, "transformer", cache, permits), cache


def test_a_signature_is_captured_when_it_is_met_again_and_replayed_from_then_on() -> None:
    model, graphs = Model(), StandInGraphs()
    denoiser, cache = captured(model, graphs)
    for seed in range(5):
        given = inputs(2, seed)
        assert torch.equal(denoiser(given), Model()(given))
    assert (len(graphs.made), len(cache), graphs.replays) == (1, 1, 4)
    assert len(model.calls) == 3  # the first one, a warm-up and the capture


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 5},
        {"rows": 4},
        {"dtype": torch.float64},
        {"static": {"factor": 2.0}},
        {"parts": True},
    ],
    ids=str,
)
def test_another_signature_has_a_graph_of_its_own(change: dict[str, Any]) -> None:
    graphs = StandInGraphs()
    denoiser, _ = captured(Model(), graphs)
    changed = inputs(change.get("rows", 2), 1, change.get("tokens", 3))
    if "dtype" in change:
        changed = {name: each.to(change["dtype"]) for name, each in changed.items()}
    if "parts" in change:
        changed["parts"] = [torch.ones(4), torch.ones(2, 3, 4)]
    cases: list[tuple[dict[str, Any], Any]] = [
        (inputs(2), None),
        (changed, change.get("static")),
    ]
    for _ in range(3):
        for given, static in cases:
            assert torch.equal(denoiser(given, static), Model()(given, static))
    assert len(graphs.made) == 2


def test_static_facts_of_the_same_values_share_a_graph() -> None:
    graphs = StandInGraphs()
    denoiser, _ = captured(Model(), graphs)
    for _ in range(3):
        denoiser(inputs(2), {"factor": 2.0, "segments": [3, (1, 2)]})
    assert len(graphs.made) == 1


def test_the_denoisers_of_a_pipeline_do_not_share_graphs() -> None:
    graphs = StandInGraphs()
    cache = GraphCache(graphs)
    one, other = (CapturedDenoiser(Model(), name, cache, lambda lora: True) for name in "ab")
    for _ in range(3):
        one(inputs(2))
        other(inputs(2))
    assert (len(graphs.made), len(cache)) == (2, 2)


@pytest.mark.parametrize(("rows", "padded"), [(3, 3), (5, 6), (7, 8), (9, 12), (13, 16)])
def test_rows_are_padded_with_the_last_one_and_the_others_are_as_without(
    rows: int, padded: int
) -> None:
    model, graphs = Model(), StandInGraphs()
    denoiser, _ = captured(model, graphs)
    for seed in range(4):
        given = inputs(rows, seed)
        assert torch.equal(denoiser(given), Model()(given))
    assert {*model.calls} == {padded}
    copy = EvaluationInputs(given, None, None).copied().arguments[0]["latents"]
    assert isinstance(copy, Tensor)
    assert torch.equal(copy[rows:], given["latents"][-1:].expand(padded - rows, -1, -1))


def test_numbers_of_rows_that_are_padded_alike_share_a_graph() -> None:
    graphs = StandInGraphs()
    denoiser, _ = captured(Model(), graphs)
    for rows in (5, 6, 5, 6, 5):
        given = inputs(rows, rows)
        assert torch.equal(denoiser(given), Model()(given))
    assert (len(graphs.made), graphs.replays) == (1, 4)


def test_more_rows_than_are_ever_padded_run_as_they_are() -> None:
    model, graphs = Model(), StandInGraphs()
    denoiser, _ = captured(model, graphs)
    for _ in range(3):
        denoiser(inputs(17))
    assert (graphs.made, model.calls) == ([], [17, 17, 17])


def test_a_result_stays_as_it_is_when_the_graph_runs_again() -> None:
    """A solver or a cache keeps predictions; another request's evaluation comes between them."""
    graphs = StandInGraphs()
    denoiser, _ = captured(Model(), graphs)
    cases = [inputs(2, seed) for seed in range(5)]
    kept = [denoiser(given) for given in cases]
    assert graphs.replays == 4
    assert all(torch.equal(ours, Model()(given)) for ours, given in zip(kept, cases, strict=True))


def test_inputs_that_are_changed_in_place_are_copied_anew() -> None:
    denoiser, _ = captured(Model(), StandInGraphs())
    given = inputs(2)
    for _ in range(4):
        given["latents"].add_(1)
        assert torch.equal(denoiser(given), Model()(given))


def test_the_graphs_used_last_are_kept() -> None:
    graphs = StandInGraphs()
    denoiser, cache = captured(Model(), graphs, most_graphs=2)
    for tokens in (1, 1, 2, 2, 1, 3, 3):  # 2 is evicted for 3
        denoiser(inputs(1, tokens=tokens))
    assert (len(graphs.made), len(cache)) == (3, 2)
    for tokens in (1, 3):
        denoiser(inputs(1, tokens=tokens))
    assert len(graphs.made) == 3
    given = inputs(1, tokens=2)
    assert torch.equal(denoiser(given), Model()(given))
    assert (len(graphs.made), len(cache)) == (4, 2)


def test_graphs_take_no_more_memory_than_they_may() -> None:
    size = EvaluationInputs(inputs(2), None, None).size
    assert size == 4 * (2 * 12 + 2 + 12)
    denoiser, cache = captured(Model(), StandInGraphs(), most_bytes=3 * size)
    for tokens in range(1, 9):
        for _ in range(2):
            denoiser(inputs(2, tokens=tokens))
            assert cache.size <= 3 * size


def test_inputs_that_are_too_large_are_neither_copied_nor_padded() -> None:
    model, graphs = Model(), StandInGraphs()
    denoiser, _ = captured(model, graphs, most_bytes=EvaluationInputs(inputs(4), None, None).size)
    for _ in range(3):
        denoiser(inputs(5))
    assert (graphs.made, {*model.calls}) == ([], {5})


class TestLoras:
    def rows(self, *uses: tuple[LoraUse, ...]) -> LoraRows:
        return LoraRows(uses, torch.device("cpu"))

    def test_each_set_of_loras_has_a_graph_for_all_rows_and_scales(self) -> None:
        graphs = StandInGraphs()
        denoiser, _ = captured(Model(), graphs)
        one, other, third = LoraUse(1, 0.5), LoraUse(2, 0.25), LoraUse(1, 2.0)
        uses = [
            None,
            self.rows(*[(one,)] * 5),
            self.rows((one,), (), (), (), (other,)),
            self.rows((third,), (), (), (), (one, other)),
            self.rows((), (third,), (), (one, third), ()),
        ]
        for _ in range(3):
            for lora in uses:
                assert torch.equal(denoiser(inputs(5), None, lora), Model()(inputs(5), None, lora))
        assert len(graphs.made) == 3  # of none, of the first, of both

    def test_graphs_of_a_lora_that_is_freed_are_dropped(self) -> None:
        graphs = StandInGraphs()
        denoiser, cache = captured(Model(), graphs)
        uses = [None, self.rows((LoraUse(1, 0.5),), ()), self.rows((), (LoraUse(2, 0.5),))]
        for _ in range(2):
            for lora in uses:
                denoiser(inputs(2), None, lora)
        assert len(cache) == 3
        cache.forget_lora(1)
        assert len(cache) == 2
        for lora in uses:
            denoiser(inputs(2), None, lora)
        assert len(graphs.made) == 4

    def test_loras_that_do_not_permit_it_are_not_captured(self) -> None:
        model, graphs = Model(), StandInGraphs()
        denoiser, _ = captured(model, graphs, permits=lambda lora: 7 not in lora.groups)
        lora = self.rows(*[(LoraUse(7, 0.5),)] * 5)
        for _ in range(3):
            assert torch.equal(denoiser(inputs(5), None, lora), Model()(inputs(5), None, lora))
        assert (graphs.made, {*model.calls}) == ([], {5})


def test_a_capture_that_fails_is_said_once_and_evaluations_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, graphs = Model(), StandInGraphs()
    denoiser, cache = captured(model, graphs)
    for _ in range(2):
        denoiser(inputs(2, tokens=9))
    graphs.fails = True
    with caplog.at_level(logging.WARNING):
        for tokens in (3, 4, 9):
            for seed in range(3):
                given = inputs(5, seed, tokens)
                assert torch.equal(denoiser(given), Model()(given))
    assert len(caplog.records) == 1
    assert (len(cache), graphs.replays) == (0, 1)
    assert {*model.calls[4:]} == {6}  # as they would have been captured


def test_an_error_of_the_model_is_the_requests() -> None:
    def broken(*arguments: Any) -> Tensor:
        raise ValueError("a rotary table for 3 tokens, not 4")

    denoiser, cache = captured(broken, StandInGraphs())
    for _ in range(3):
        with pytest.raises(ValueError, match="rotary table"):
            denoiser(inputs(2))
    assert not cache.failed


# -- the stand-in


class Careless(Model):
    """A denoiser whose evaluation does something that a graph can't repeat."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.kept: dict[str, Tensor] = {}
        self.outside = torch.ones(())
        self.number = 1.0

    def __call__(self, tensors: Any, static: Any = None, lora: LoraRows | None = None) -> Tensor:
        out = super().__call__(tensors, static, lora)
        match self.how:
            case "reads a number":
                return out * out.max().item()
            case "reads a list":
                return out * tensors["timestep"].tolist()[0]
            case "makes a tensor of numbers":
                return out * torch.tensor([1.0, 2.0, 3.0, 4.0])
            case "uses a number that changes":
                self.number += 1
                return out * self.number
            case "reads a tensor that is exchanged":
                self.outside = self.outside + 1
                return out * self.outside
            case _:
                self.kept["now"] = out * 2
                return out


@pytest.mark.parametrize("how", ["reads a number", "reads a list", "makes a tensor of numbers"])
def test_the_stand_in_refuses_to_capture_what_waits_or_comes_from_the_host(how: str) -> None:
    denoiser, cache = captured(Careless(how), StandInGraphs())
    for _ in range(3):
        denoiser(inputs(2))
    assert cache.failed


@pytest.mark.parametrize("how", ["uses a number that changes", "reads a tensor that is exchanged"])
def test_the_stand_in_repeats_what_was_there_at_the_capture(how: str) -> None:
    model = Careless(how)
    denoiser, _ = captured(model, StandInGraphs())
    second, third = [denoiser(inputs(2)) for _ in range(3)][1:]
    assert torch.equal(second, third)
    assert not torch.equal(third, model(inputs(2)))


def test_what_is_made_in_a_capture_and_kept_is_not_a_number() -> None:
    model = Careless("keeps a tensor")
    denoiser, _ = captured(model, StandInGraphs())
    for _ in range(3):
        denoiser(inputs(2))
    assert model.kept["now"].isnan().all()


# -- what a replay costs, and CUDA's graphs


class Copies(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("rows", "groups"), [(2, 2), (5, 2)])
def test_a_replay_is_a_copy_for_each_data_type_and_one_of_the_result(
    rows: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = StandInGraphs()
    denoiser, _ = captured(Model(), graphs)
    given = inputs(rows)
    given["timestep"] = given["timestep"].double()
    for _ in range(2):
        denoiser(given)
    monkeypatch.setattr(graphs.made[0], "replay", lambda: None)
    with Copies() as copies:
        denoiser(given)
    assert copies.seen == {"aten._foreach_copy_.default": groups, "aten.clone.default": 1}


class Recorded:
    """Stands for torch.cuda, and notes what happens on which stream."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.current: Any = SimpleNamespace(name="current", wait_stream=self.waits("current"))

    def waits(self, name: str) -> Callable[[Any], None]:
        return lambda other: self.events.append(f"{name} waits for {other.name}")

    def made_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(name="side", wait_stream=self.waits("side"))

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def capture(self, *arguments: Any, **options: Any) -> Iterator[None]:
        bound = inspect.signature(_CUDA_GRAPH.__init__).bind(None, *arguments, **options).arguments
        assert (bound["pool"], bound["capture_error_mode"]) == ("pool", "thread_local")
        self.events.append("capture begins")
        with self.on(bound["stream"]):
            yield
        self.events.append("capture ends")


_CUDA_GRAPH: Any = torch.cuda.graph


def test_cuda_graphs_warm_up_on_the_stream_of_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Recorded()
    graph = SimpleNamespace(replay=lambda: cuda.events.append("replay"))
    for name, value in {
        "Stream": cuda.made_stream,
        "stream": cuda.on,
        "graph": cuda.capture,
        "CUDAGraph": lambda: graph,
        "current_stream": lambda: cuda.current,
        "graph_pool_handle": lambda: "pool",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def evaluate() -> Tensor:
        cuda.events.append(f"evaluate on {cuda.current.name}")
        return torch.ones(1)

    backend = graphs_of(torch.device("cuda"))
    assert backend is not None
    made = backend.capture(evaluate)
    made.replay()
    assert made.output == 1
    assert cuda.events == [
        "side waits for current",
        "evaluate on side",
        "current waits for side",
        "capture begins",
        "evaluate on side",
        "capture ends",
        "replay",
    ]
