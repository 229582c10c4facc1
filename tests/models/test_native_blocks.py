"""What every native transformer offers to those who run it block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engineless import load, start

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.models.denoiser import EagerDenoiser

NATIVE = ["flux-dev", "chroma", "flux2-klein", "qwenimage", "sd3", "wan", "wan-vace", "zimage"]
_OUTSIDE_OF_BLOCKS = 14
"""The most linear layers that a transformer has besides its blocks: embedders and ends."""


@pytest.fixture(params=NATIVE)
def checkpoint(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


def test_blocks_are_listed_in_the_order_in_which_an_evaluation_runs_them(checkpoint: Path) -> None:
    pipeline = load(checkpoint)
    transformer = pipeline.denoiser_module
    ran: list[torch.nn.Module] = []
    for block in transformer.blocks:
        block.register_forward_pre_hook(lambda module, _: ran.append(module))
    state = start(pipeline, SamplingParams(prompt="a", width=32, height=32, num_inference_steps=3))
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert ran == list(transformer.blocks)


def test_blocks_hold_all_layers_but_embedders_and_ends(checkpoint: Path) -> None:
    transformer = load(checkpoint).denoiser_module
    inside = {id(layer) for block in transformer.blocks for layer in block.modules()}
    layers = [module for module in transformer.modules() if isinstance(module, Linear)]
    outside = [layer for layer in layers if id(layer) not in inside]
    assert len(outside) <= _OUTSIDE_OF_BLOCKS < len(layers)


def test_every_linear_layer_knows_the_tensors_that_it_was_filled_from(checkpoint: Path) -> None:
    transformer = load(checkpoint).denoiser_module
    for name, layer in transformer.named_modules():
        assert not isinstance(layer, torch.nn.Linear), name
        if isinstance(layer, Linear):
            starts = [segment.start for segment in layer.segments]
            ends = [segment.start + segment.rows for segment in layer.segments]
            assert [*starts, len(layer.weight)] == [0, *ends], name


def test_an_evaluation_changes_none_of_its_inputs_and_repeats_itself(checkpoint: Path) -> None:
    pipeline = load(checkpoint)
    calls: list[tuple[dict[str, torch.Tensor | None], torch.Tensor]] = []
    state = start(pipeline, SamplingParams(prompt="a", width=32, height=32, num_inference_steps=3))
    denoise = EagerDenoiser.__call__

    def recorded(self, tensors, static=None, lora=None):
        before = {name: None if t is None else t.clone() for name, t in tensors.items()}
        first, second = (denoise(self, tensors, static, lora) for _ in range(2))
        assert torch.equal(first, second)
        calls.append((before, first))
        for name, tensor in tensors.items():
            assert tensor is before[name] or torch.equal(tensor, before[name]), name
        return first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EagerDenoiser, "__call__", recorded)
        pipeline.forward(Phase.DENOISE, [state], 2)
    assert len(calls) == 2
