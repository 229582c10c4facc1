"""A batch key says how many tokens the denoiser sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engineless import load, start
from parity import take_pictures
from support import CASES, Cell
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages import rows
from multimodal_gen.runtime.stages.request_state import RequestState

Checkpoints = Callable[..., Path]
LIBRARY = {family.name for family in FAMILIES if family.denoiser == "fallback"}
COUNTED = {cell: case for cell, case in CASES.items() if cell[0] not in LIBRARY}
"""What a fallback's denoisers see is known to the library alone: its keys are guesses."""


@dataclass
class Sight:
    """What a denoiser sees in one evaluation, by the lengths that its attentions have."""

    queries: set[int] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        """The longest sequence, and those that it only looks at, in cross-attention."""
        return max(self.queries) + sum(self.keys - self.queries)


@pytest.fixture
def sight(monkeypatch: pytest.MonkeyPatch) -> Sight:
    seen, attend = Sight(), F.scaled_dot_product_attention

    def noted(query: Tensor, key: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.queries.add(query.shape[-2])
        seen.keys.add(key.shape[-2])
        return attend(query, key, *args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    return seen


def note_positions(unet: nn.Module, seen: Sight) -> None:
    """A UNet may have no attention at its full resolution."""

    def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.queries.add(arguments[0].shape[2:].numel())

    unet.register_forward_pre_hook(note)


def started(checkpoints: Checkpoints, cell: Cell) -> tuple[ComposedPipeline, RequestState]:
    pipeline, call = load(checkpoints(CASES[cell].checkpoint)), CASES[cell].call
    pictures = take_pictures(call)
    return pipeline, start(pipeline, SamplingParams(**call), pictures)


@pytest.mark.parametrize("cell", COUNTED, ids=" ".join)
def test_a_batch_key_has_the_tokens_that_the_denoiser_sees(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, sight: Sight, cell: Cell
) -> None:
    for module, name, value in CASES[cell].patches:
        monkeypatch.setattr(f"{module}.{name}", value)
    monkeypatch.setattr(rows, "_TEXT_BUCKET", 1)  # texts that are padded share with no others
    pipeline, state = started(checkpoints, cell)
    key = pipeline.batch_key(state, state.evaluation)
    if pipeline.denoiser_name == "unet":
        note_positions(pipeline.denoiser_module, sight)
    sight.queries.clear()
    sight.keys.clear()
    pipeline.forward(Phase.DENOISE, [state], 1)
    kept_before = "prefix" in state.conditioning["positive"]  # queries are among the keys then
    assert key.tokens == (max(sight.keys) if kept_before else sight.tokens)


@pytest.mark.parametrize("cell", [("z_image", "text-to-image"), ("qwen_image", "text-to-image")])
def test_texts_of_unlike_lengths_that_may_share_count_as_long_as_they_may_be(
    checkpoints: Checkpoints, cell: Cell
) -> None:
    pipeline = load(checkpoints(CASES[cell].checkpoint))
    call = CASES[cell].call
    texts = ("a heart", "a red heart on the sea")
    states = [start(pipeline, SamplingParams(**{**call, "prompt": text})) for text in texts]
    lengths = {s.conditioning["positive"]["encoder_hidden_states"].shape[1] for s in states}
    assert len(lengths) == len(texts)
    (key,) = {pipeline.batch_key(state, 0) for state in states}
    assert key.tokens == pipeline.latent_tokens(states[0]) + rows.text_bucket(max(lengths))


def test_a_fallback_guesses_a_token_for_each_16_by_16_pixels(checkpoints: Checkpoints) -> None:
    cell: Cell = ("fallback", "text-to-image")
    pipeline, state = started(checkpoints, cell)
    call = CASES[cell].call
    assert pipeline.batch_key(state, 0).tokens == call["width"] * call["height"] // 256
