"""Tokens that the front counts from a checkpoint's files, against those that the engine reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from engineless import load
from tiny_checkpoints.tokenizers import clip_tokenizer

from multimodal_gen.checkpoints.prompts.tokens import prompt_counters
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

LENGTH = 16
PROMPTS = (
    "",
    "a red heart",
    "a tree next to a house, " * 8 + "the end",
    "Ünï  çödé — 1234 don't " * 9,
    "a red heart" + " " * 300 + "on the sea",
)


def lost_by_engine(pipeline: ComposedPipeline, prompt: str) -> tuple[int, str]:
    """Tokens that the encoder with the least room loses, and their text."""
    reads = pipeline.reads
    cuts = [each.cut(prompt, "plain") for each in reads.in_chunks.values()]
    cuts += [each.cut(reads.cleaned(prompt), "plain", LENGTH) for each in reads.in_one.values()]
    return max(((cut.lost, cut.text.strip()) for cut in cuts if cut), default=(0, ""))


@pytest.mark.parametrize("name", ["flux-schnell", "sd15", "sdxl", "sd3", "wan"])
def test_what_is_cut_is_what_the_engine_does_not_read(
    checkpoints: Callable[..., Path], name: str
) -> None:
    folder = checkpoints(name)
    pipeline = load(folder)
    counters = prompt_counters(folder, pipeline.family.name)
    assert counters
    for prompt in PROMPTS:
        found = [told for count in counters if (told := count(prompt, LENGTH))]
        assert len(found) == len(counters)
        worst = min(found, key=lambda each: each.limit - each.tokens)
        lost, text = lost_by_engine(pipeline, prompt)
        assert max(0, worst.tokens - worst.limit) == lost
        assert " ".join(worst.cut.split()) == " ".join(text.split())


def test_clip_is_read_from_its_first_checkpoints_files(tmp_path: Path) -> None:
    tokenizer = clip_tokenizer()
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [" ".join(each) for each in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder/config.json").write_text('{"max_position_embeddings": 20}')
    (counter,) = prompt_counters(tmp_path, "stable_diffusion")
    for prompt in PROMPTS:
        counted = counter(prompt, LENGTH)
        assert counted
        assert (counted.tokens, counted.limit) == (len(tokenizer(prompt).input_ids), 20)


@pytest.mark.parametrize("family", ["qwen_image", "stable_diffusion"])
def test_where_it_cannot_be_told_nothing_is(tmp_path: Path, family: str) -> None:
    (tmp_path / "tokenizer").mkdir()
    assert prompt_counters(tmp_path, family) == ()
