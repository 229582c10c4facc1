"""The end of a prompt that an encoder does not read is told with its words, for every kind of
encoder."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from engineless import load, start

from multimodal_gen.configs.sampling_params import SamplingParams

PROMPT = "a red heart on the sea, " * 40
SIZE = {"width": 64, "height": 64, "num_inference_steps": 2}
SLOW = (
    "chroma cogvideox flux2-dev hidream hunyuan-video krea2 latte ltx ltx2 modular-sdxl "
    "pixart-sigma sd3 wan zimage"
)


@pytest.mark.parametrize(
    "name",
    [
        "flux2-klein",  # a chat
        "qwenimage",  # a template
        "sana",  # an instruction before it
        "pixart-alpha",  # a pipeline of diffusers, which only logs
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW.split()),
    ],
)
def test_the_words_that_are_lost_are_told_once(name: str, checkpoints: Callable[..., Path]) -> None:
    pipeline = load(checkpoints(name))
    info = pipeline.model_info("test")
    lengths = {"ltx2": 128, "cogvideox": 24}
    length = {"max_sequence_length": lengths.get(name, 32)}
    given = SIZE | (length if "max_sequence_length" in info.parameters else {})
    state = start(pipeline, SamplingParams(prompt=PROMPT, **given))
    (warning,) = [each for each in state.warnings if each.field == "prompt"]
    assert warning.code == "prompt_cut"
    found = re.search(r"cut at (\d+) tokens.*?, (['\"].*['\"])(?:; |$)", str(warning))
    assert found is not None
    lost = "".join(ast.literal_eval(found[2]).removesuffix("…").split())
    assert len(lost) > 100
    assert lost in "".join(PROMPT.split()) or name in ("latte", "modular-sdxl")
    assert int(found[1]) in (length["max_sequence_length"], 77, 120)


def test_a_prompt_that_fits_is_not_said_to_be_cut(checkpoints: Callable[..., Path]) -> None:
    state = start(load(checkpoints("qwenimage")), SamplingParams(prompt="a red heart", **SIZE))
    assert state.warnings == []
