"""Every native family and task, with its evaluations captured: the same pixels, nothing frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import left, load, start
from lora_forms import make
from loras import LoadedLoras, write
from parity import take_pictures
from stand_in_graphs import StandInGraphs, memory_of
from support import CASES, Cell
from tiny_checkpoints.case import patched

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import Runner
from multimodal_gen.runtime.layers.attention.backends import sdpa
from multimodal_gen.runtime.layers.embedding import KEPT_FREQUENCIES
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.loader.lora.targets import targets_in
from multimodal_gen.runtime.models.captured import graph_cache
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.models.dits.chroma.model import ChromaTransformer
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

NATIVE = {family.name for family in FAMILIES if family.ulysses}
CELLS = [cell for cell in CASES if cell[0] in NATIVE]
ALIKE = ("flux2_dev", "flux_fill", "flux_kontext", "qwen_image_edit", "wan_image_to_video")
"""Families with the transformer of another."""
FIRST = {cell[0]: cell for cell in reversed(CELLS) if cell[0] not in ALIKE}
"""A task of each transformer; the others are slow tests."""
_RUNNERS: tuple[Runner, ...] = ("captured", "eager")
OTHER: dict[str, Any] = {"prompt": "a dog that sleeps " * 2, "seed": 9, "guidance_scale": 3.0}


def put_lora(pipeline: ComposedPipeline, component: str, path: Path) -> None:
    """Write a plain LoRA for all layers of a component."""
    keys = {}
    for seed, (name, target) in enumerate(targets_in(pipeline.components[component])):
        if isinstance(target.module, Linear) and target.takes_rank:
            weight = target.module.numbers(range(target.start, target.start + target.shape[0]))
            form = make("lora", weight.view(target.shape), seed, size=0.1)
            keys |= {f"{component}.{name}.{key}": tensor for key, tensor in form.keys.items()}
    write(path, keys)


class Requests:
    """Requests of one case, run in one way or another."""

    def __init__(self, pipeline: ComposedPipeline, call: dict[str, Any], loras: Path) -> None:
        self.pipeline = pipeline
        self.call = dict(call)
        self.pictures = take_pictures(self.call)
        state = start(pipeline, SamplingParams(**self.call), self.pictures)
        put_lora(pipeline, pipeline.denoisers_now([state])[0], loras / "all.safetensors")
        self.loras = LoadedLoras(pipeline, loras)

    def latents(
        self, runner: Runner, *requests: tuple[dict[str, Any], float | None]
    ) -> torch.Tensor:
        """Latents of these changed requests, with LoRA scales, in one batch if they share keys."""
        states = [
            start(
                self.pipeline,
                SamplingParams(**self.call | changes),
                self.pictures,
                loras=[] if scale is None else [self.loras.use("all", scale)],
            )
            for changes, scale in requests
        ]
        for state in states:
            state.runner = runner
        keys = {self.pipeline.batch_key(state, state.evaluation) for state in states}
        for batch in [states] if len(keys) == 1 else [[state] for state in states]:
            while left(batch[0]):
                self.pipeline.forward(Phase.DENOISE, batch, 1)
        return torch.cat([state.running()[1].flatten() for state in states])


def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandInGraphs:
    """Graphs of the pipelines that are loaded from now on."""
    graphs = StandInGraphs()
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: graphs)
    monkeypatch.setattr(sdpa, "_LONG", math.inf)  # only on a CPU are lengths read by the host
    return graphs


def check(
    cell: Cell, checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, graphs = CASES[cell], stand_in(monkeypatch)
    with patched(case.own_patches):
        pipeline = load(checkpoints(case.checkpoint))
        requests = Requests(pipeline, case.call, folder)
        sequence: Sequence[Sequence[tuple[dict[str, Any], float | None]]] = (
            [({}, None)],
            [({}, 0.25), (OTHER, 0.5)],
            [(OTHER, None), ({"seed": 5, "guidance_scale": 2.0}, 1.0)],
        )
        eager = [requests.latents("eager", *batch) for batch in sequence]
        assert graphs.made == []
        captured = [requests.latents("captured", *batch) for batch in sequence]
    assert len(graphs.made) >= 2
    assert graphs.replays >= len(graphs.made)
    for ours, theirs in zip(captured, eager, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for one, other in pairwise(eager):
        assert one.shape != other.shape or (one - other).abs().max() > 1e-3
    check_reads(pipeline, graphs)


def check_reads(pipeline: ComposedPipeline, graphs: StandInGraphs) -> None:
    """Graphs read weights, LoRAs and their inputs, all of which stay where they are."""
    names = pipeline.components_of_kind(pipeline.denoiser_name)
    modules = [pipeline.components[name] for name in names]
    kept = [each for module in modules for each in (*module.parameters(), *module.buffers())]
    kept += [
        tensor
        for module in modules
        for layer in module.modules()
        if isinstance(layer, Linear)
        for terms in layer.loras._terms.values()
        for term in terms
        for tensor in term.tensors
    ]
    kept += [
        table
        for module in modules
        if isinstance(module, ChromaTransformer)  # one table for each data type
        for table in module._numbers._tables.values()
    ]
    kept += KEPT_FREQUENCIES.values()
    cache = pipeline.runners.graphs
    assert isinstance(cache, GraphCache)
    inputs = [each for found in cache.captured for each in found.inputs.tensors]
    known = {memory_of(tensor) for tensor in (*kept, *inputs)}
    for graph in graphs.made:
        assert [each.shape for at, each in graph.reads.items() if at not in known] == []


@pytest.mark.parametrize("name", ["krea2", "qwen_image", "qwen_image_21", "z_image"])
def test_texts_of_unlike_length_share_a_graph(
    name: str, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, graphs = CASES[FIRST[name]], stand_in(monkeypatch)
    requests = Requests(load(checkpoints(case.checkpoint)), case.call, tmp_path)
    for prompt in ("a heart", "a red heart on the sea", "a dog that sleeps"):
        ours, theirs = (requests.latents(runner, ({"prompt": prompt}, None)) for runner in _RUNNERS)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(graphs.made) == 1


@pytest.mark.parametrize("cell", FIRST.values(), ids=" ".join)
def test_captured_evaluations_give_each_family_the_same_pixels(
    cell: Cell, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(cell, checkpoints, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [c for c in CELLS if c not in FIRST.values()], ids=" ".join)
def test_captured_evaluations_give_each_task_the_same_pixels(
    cell: Cell, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(cell, checkpoints, tmp_path, monkeypatch)
