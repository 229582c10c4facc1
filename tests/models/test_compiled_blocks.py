"""The repeated blocks of native transformers as graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from engineless import load, start

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import Runner
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import Lora, LoraUse
from multimodal_gen.runtime.layers.lora_terms import LowRank
from multimodal_gen.runtime.models.compiled.example import Example
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

_VIDEO = {"num_frames": 5, "max_sequence_length": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "flux-dev": {},
    "chroma": {},
    "sd3": {},
    "zimage": {},
    "qwenimage": {},
    "flux2-klein": {},
    "qwenimage21": {},
    "krea2": {},
    "ltx2": _VIDEO,
    "minimax-h3": {"num_frames": 124},
    "wan-vace": _VIDEO,
    "wan": _VIDEO,
}
USUAL = ("zimage", "wan")
"""Those of the usual run: with texts of unlike lengths, and with a video."""
MOST_GRAPHS = 8

_LONG = "a red heart on the sea and a dog that sleeps beside it "
MIXED: list[tuple[int, int, list[tuple[str, tuple[int, ...]]]]] = [
    (64, 96, [("a", ())]),
    (96, 64, [("a", ()), ("b", ())]),
    (64, 64, [("a", (1,))]),
    (128, 96, [("a", (1,)), ("b", (2,))]),
    (64, 96, [("a", ()), (_LONG, ()), ("c", ())]),
    (128, 96, [("a", (1, 2))]),
    (64, 64, [(_LONG, (1,)), ("b", ())]),
    (128, 128, [("a", ())]),
    (96, 96, [("a", ()), ("b", ()), ("c", ()), (_LONG, ())]),
    (64, 128, [("a", (2,)), ("b", (2,))]),
    (32, 32, [(_LONG, ())]),
    (96, 128, [("a", (1, 2)), ("b", ()), ("c", (1,))]),
]
"""Sizes, and the prompts and LoRAs of requests that may share an evaluation."""


@dataclass
class Counted:
    """A backend that runs graphs as they are."""

    graphs: int = 0
    calls: int = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return graph(*args)

        return run


@pytest.fixture(autouse=True)
def dynamo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(disable=False):
        yield
    torch._dynamo.reset()


def _low_rank(layer: Linear, seed: int) -> LowRank:
    draw = torch.Generator().manual_seed(seed)
    assert layer.weight is not None
    channels, width = layer.weight.flatten(1).shape
    down, up = (torch.randn(size, generator=draw) for size in ((2, width), (channels, 2)))
    return LowRank(down=0.1 * down, up=0.1 * up, bias=None, scale=1.0, start=0)


def _with_loras(folder: Path) -> ComposedPipeline:
    pipeline = load(folder)
    layers = [m for m in pipeline.denoiser_module.modules() if type(m) is Linear]
    for key in (1, 2):
        pipeline.loras.add(key, Lora({m: [_low_rank(m, key)] for m in layers}, of_encoders=False))
    return pipeline


def _evaluated(
    pipeline: ComposedPipeline,
    mixed: tuple[int, int, list[tuple[str, tuple[int, ...]]]],
    request: dict[str, Any],
    runner: Runner,
) -> list[torch.Tensor]:
    width, height, rows = mixed
    states: list[RequestState] = []
    for prompt, loras in rows:
        params = SamplingParams(
            prompt=prompt, width=width, height=height, num_inference_steps=4, seed=4, **request
        )
        state = start(pipeline, params, loras=[LoraUse(key, 0.7) for key in loras])
        state.runner = runner
        states.append(state)
    first = pipeline.batch_key(states[0], 0)
    states = [state for state in states if pipeline.batch_key(state, 0) == first]
    pipeline.forward(Phase.DENOISE, states, 1)
    return [state.running()[1] for state in states]


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in USUAL else pytest.mark.slow) for f in FAMILIES],
)
def test_few_graphs_without_breaks_hold_for_mixed_shapes_rows_and_loras(
    family: str, checkpoints: Callable[..., Path]
) -> None:
    pipeline, counted = _with_loras(checkpoints(family)), Counted()
    for blocks in pipeline.runners.blocks.values():
        blocks.backend = counted
    for mixed in MIXED:
        eager = _evaluated(pipeline, mixed, FAMILIES[family], "eager")
        pipeline.runners.compiles = True
        _evaluated(pipeline, mixed, FAMILIES[family], "compiled")
        pipeline.runners.compiles = False
        graphs, calls = counted.graphs, counted.calls
        compiled = _evaluated(pipeline, mixed, FAMILIES[family], "compiled")
        assert counted.graphs == graphs
        assert counted.calls - calls >= len(pipeline.denoiser_module.blocks)  # none ran without
        for one, other in zip(eager, compiled, strict=True):
            assert (one - other).abs().max() <= 1e-5 * one.abs().max()
    assert 0 < counted.graphs <= MOST_GRAPHS


def test_an_evaluation_without_a_graph_runs_operation_by_operation(
    checkpoints: Callable[..., Path],
) -> None:
    pipeline, counted = load(checkpoints("wan")), Counted()
    for blocks in pipeline.runners.blocks.values():
        blocks.backend = counted
    eager = _evaluated(pipeline, MIXED[0], _VIDEO, "eager")
    compiled = _evaluated(pipeline, MIXED[0], _VIDEO, "compiled")
    assert counted.graphs == 0
    assert torch.equal(eager[0], compiled[0])


def test_arguments_of_blocks_are_described_and_made_again_with_two_rows() -> None:
    x = torch.zeros(1, 6, 4)[:, :3]
    example = Example.of((x, [x, 3], ("a", None)), {"skips": True})
    args, kwargs = example.arguments(torch.device("cpu"))
    assert args[0].shape == (2, 3, 4)
    assert args[0].stride() == x.stride()
    assert args[1][0] is args[0]
    assert (args[1][1], args[2], kwargs) == (3, ("a", None), {"skips": True})


def test_arguments_that_are_no_data_are_refused() -> None:
    with pytest.raises(TypeError, match="function is no data"):
        Example.of((_low_rank,), {})
