"""Prompts with weights, and those of several chunks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load, run, run_joined, start
from told import texts

from multimodal_gen.configs.prompts.grammar import DEEPEST, WeightedText, parse
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.models.encoders.chunks import TokenRun, fill
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.prompts import MOST_CHUNKS

LONG = "a red heart on the sea, " * 20
"""140 tokens."""


def asked(prompt: str, syntax: Any = "a1111", **params: Any) -> SamplingParams:
    size = {"width": 64, "height": 64, "num_inference_steps": 2}
    return SamplingParams(prompt=prompt, prompt_syntax=syntax, **{**size, **params})


@pytest.fixture(scope="module")
def sd15(checkpoints: Callable[..., Path]) -> ComposedPipeline:
    return load(checkpoints("sd15"))


def told(pipeline: ComposedPipeline, params: SamplingParams) -> dict[str, dict[str, torch.Tensor]]:
    return start(pipeline, params).conditioning


@pytest.mark.parametrize(
    ("prompt", "weights"),
    [
        ("a cat", {"a cat": 1.0}),
        ("a (red) cat", {"a ": 1.0, "red": 1.1, " cat": 1.0}),
        ("a [red] (cat:1.5)", {"a ": 1.0, "red": 1 / 1.1, " ": 1.0, "cat": 1.5}),
        ("((red:1.2) cat:0.5)", {"red": 0.6, " cat": 0.5}),
        (r"a \(red\) \[cat\]\\", {r"a (red) [cat]" + "\\": 1.0}),
        ("a (red", {"a ": 1.0, "red": 1.1}),
        ("a) red]", {"a) red]": 1.0}),
        ("(a:b:1.2)", {"a:b": 1.2}),
        ("", {"": 1.0}),
    ],
)
def test_the_web_uis_weights_multiply(prompt: str, weights: dict[str, float]) -> None:
    parts = parse(prompt, "a1111")
    assert [part.text for part in parts] == [*weights]
    assert [part.weight for part in parts] == pytest.approx([*weights.values()])


@pytest.mark.parametrize(
    ("prompt", "weights"),
    [
        ("a (red) [cat]", {"a ": 1.0, "red": 1.1, " [cat]": 1.0}),
        ("((red:1.2) cat:0.5)", {"red": 1.2, " cat": 0.5}),
        ("((red) cat)", {"red": 1.21, " cat": 1.1}),
        (r"(a \(red\):1.2)", {"a (red)": 1.2}),
        ("a (red", {"a (red": 1.0}),
        ("(red:nan)", {"red:nan": 1.1}),
    ],
)
def test_comfyuis_weights_replace_each_other(prompt: str, weights: dict[str, float]) -> None:
    parts = parse(prompt, "comfyui")
    assert [part.text for part in parts] == [*weights]
    assert [part.weight for part in parts] == pytest.approx([*weights.values()])


@pytest.mark.parametrize("syntax", ["a1111", "comfyui"])
def test_brackets_that_are_nested_too_deeply_are_text(syntax: Any) -> None:
    parts = parse("(" * (DEEPEST + 1) + "a" + ")" * (DEEPEST + 1), syntax)
    assert "".join(part.text for part in parts) == "(a)"
    assert parts[0].weight == pytest.approx(1.1**DEEPEST)


def test_break_begins_a_chunk() -> None:
    parts = parse("a red BREAK cat", "a1111")
    assert parts == [WeightedText("a red"), WeightedText("cat", breaks=True)]
    runs = [TokenRun([1, 2], 1.0), TokenRun([3], 1.0, breaks=True)]
    assert [chunk.ids for chunk in fill("a1111", runs, 75)] == [[1, 2], [3]]


def test_the_web_ui_splits_after_a_comma_that_is_near() -> None:
    comma = 9
    near = [TokenRun([1] * 60 + [comma] + [2] * 20, 1.0)]
    far = [TokenRun([1] * 54 + [comma] + [2] * 26, 1.0)]
    assert [len(chunk.ids) for chunk in fill("a1111", near, 75, comma)] == [61, 20]
    assert [len(chunk.ids) for chunk in fill("a1111", far, 75, comma)] == [75, 6]


def test_comfyui_keeps_short_parts_together() -> None:
    runs = [TokenRun([1] * 70, 1.0), TokenRun([2] * 7, 1.2), TokenRun([3] * 70, 1.0)]
    assert [len(chunk.ids) for chunk in fill("comfyui", runs, 75)] == [70, 75, 2]


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux-dev"])
def test_short_prompts_without_weights_are_read_as_plain_ones(
    name: str, checkpoints: Callable[..., Path]
) -> None:
    pipeline = load(checkpoints(name))
    known = {"max_sequence_length": 32} if name in ("sd3", "flux-dev") else {}
    texts = {"prompt": "a red cat, on the sea", "negative_prompt": "blurry", **known}
    plain = told(pipeline, asked(syntax="plain", **texts))
    for syntax in ("a1111", "comfyui"):
        read = told(pipeline, asked(syntax=syntax, **texts))
        for branch, tensors in plain.items():
            assert all(torch.equal(tensors[key], read[branch][key]) for key in tensors)


def encoded(pipeline: ComposedPipeline, texts: list[str]) -> torch.Tensor:
    """States of texts by the library alone, of a chunk each."""
    tokenizer, module = pipeline.components["tokenizer"], pipeline.components["text_encoder"]
    ids = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        states: torch.Tensor = module(ids)[0]
    return states


def test_the_web_ui_restores_the_mean(sd15: ComposedPipeline) -> None:
    (states,) = encoded(sd15, ["a red cat"])
    weights = torch.ones(77, 1)
    weights[2] = 1.3
    scaled = states * weights
    expected = scaled * (states.mean() / scaled.mean())
    read = told(sd15, asked("a (red:1.3) cat"))["positive"]["encoder_hidden_states"]
    assert torch.allclose(read[0], expected, atol=1e-5)


def test_comfyui_weights_the_difference_from_the_empty_prompt(sd15: ComposedPipeline) -> None:
    states, empty = encoded(sd15, ["a red cat", ""])
    expected = states.clone()
    expected[2] = empty[2] + (states[2] - empty[2]) * 1.3
    read = told(sd15, asked("a (red:1.3) cat", "comfyui"))["positive"]["encoder_hidden_states"]
    assert torch.allclose(read[0], expected, atol=1e-5)


@pytest.mark.parametrize("syntax", ["a1111", "comfyui"])
def test_long_prompts_are_read_to_their_end(sd15: ComposedPipeline, syntax: Any) -> None:
    state = start(sd15, asked(LONG, syntax, negative_prompt="blurry"))
    read = {key: each["encoder_hidden_states"] for key, each in state.conditioning.items()}
    assert read["positive"].shape[1] == read["negative"].shape[1] == 2 * 77
    blurry, empty = encoded(sd15, ["blurry", ""])
    assert torch.equal(read["negative"][0, :77], blurry)
    assert torch.allclose(read["negative"][0, 77:], empty, atol=1e-6)
    assert state.prompt_notes == ["prompt: 2 chunks", "negative_prompt: 1 chunk"]
    assert texts(state.warnings) == []


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_of_too_many_chunks_is_refused(sd15: ComposedPipeline, field: str) -> None:
    texts = {"prompt": "a cat", field: "BREAK " * (MOST_CHUNKS + 1)}
    params = SamplingParams(**texts, guidance_scale=5.0, prompt_syntax="a1111")
    with pytest.raises(InvalidRequest, match=f"{field}=.*has [0-9]+ chunks by prompt_syntax=a1111"):
        start(sd15, params)


def test_the_pooled_state_is_the_first_chunks(checkpoints: Callable[..., Path]) -> None:
    pipeline = load(checkpoints("sdxl"))
    halves = told(pipeline, asked("a red cat BREAK a dog"))["positive"]
    alone = told(pipeline, asked("a red cat"))["positive"]
    assert torch.equal(halves["text_embeds"], alone["text_embeds"])
    assert halves["encoder_hidden_states"].shape[1] == 2 * 77


def test_notes_tell_the_weights(sd15: ComposedPipeline) -> None:
    state = start(sd15, asked("a (red:1.3) [cat]", guidance_scale=1.0))
    assert state.prompt_notes == ["prompt: 1 chunk; weights: red 1.3, cat 0.9091"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "sd15",
            "cut at 77 tokens by text_encoder: the last 65 are not read, {lost!r}"
            "; prompt_syntax=a1111 reads all",
        ),
        (
            "wan",
            "cut at 32 tokens by text_encoder: the last 109 are not read, {lost!r}"
            "; max_sequence_length=141 reads all",
        ),
        (
            "flux-dev",
            "cut at 32 tokens by text_encoder_2: the last 109 are not read, {lost!r}"
            "; max_sequence_length=141 reads all",
        ),
    ],
)
def test_tokens_that_are_cut_off_are_told(
    name: str, told: str, checkpoints: Callable[..., Path]
) -> None:
    known = {} if name == "sd15" else {"max_sequence_length": 32}
    state = start(load(checkpoints(name)), asked(LONG, "plain", guidance_scale=1.0, **known))
    first = 65 if name == "sd15" else 27  # of the words that are not read
    lost = " ".join(LONG.split()[first:])
    lost = lost if len(lost) <= 300 else f"{lost[:299]}…"
    (warning,) = state.warnings
    assert (warning.code, warning.field) == ("prompt_cut", "prompt")
    assert str(warning) == f"prompt: {told.format(lost=lost)}"


def test_requests_with_weights_share_a_batch_as_they_are_alone(sd15: ComposedPipeline) -> None:
    requests = [
        asked("a (red:1.4) cat", seed=1),
        asked("a [red] dog", "comfyui", seed=2),
        asked("a bird", "plain", seed=3),
    ]
    for joined, params in zip(run_joined(sd15, requests, [0, 0, 0]), requests, strict=True):
        assert torch.allclose(joined.latents, run(sd15, params).latents, atol=1e-4)


def test_requests_of_unlike_numbers_of_chunks_share_no_evaluation(sd15: ComposedPipeline) -> None:
    states = [start(sd15, asked(prompt)) for prompt in (LONG, "a cat")]
    assert len({sd15.batch_key(state, 0) for state in states}) == 2


def test_a_model_whose_text_encoders_have_no_weights_refuses_a_syntax(
    checkpoints: Callable[..., Path],
) -> None:
    model = load(checkpoints("chroma")).model_info("chroma")
    resolve(SamplingParams(prompt_syntax="plain"), model)
    with pytest.raises(InvalidRequest, match="prompt_syntax='a1111': not supported by chroma"):
        resolve(SamplingParams(prompt_syntax="a1111"), model)
