"""Example prompts and known words of checkpoints, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from http_serving import app_with, app_without_engine, ask
from places import ROOT

from multimodal_gen.checkpoints.prompts.examples import Examples, read_examples
from multimodal_gen.errors import InvalidCheckpoint, QueueFull
from multimodal_gen.launch.hub import wanted_files
from multimodal_gen.launch.model_path import BUNDLED_MODEL


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """One that has no examples."""
    (tmp_path / "model_index.json").write_text("{}")
    return tmp_path


def put(checkpoint: Path, **examples: Any) -> None:
    (checkpoint / "examples.json").write_text(json.dumps(examples))


def test_a_model_without_a_list_of_words_says_so(checkpoint: Path) -> None:
    reply = ask(app_without_engine(model_path=str(checkpoint)), "GET", "/model_info/known_words")
    assert reply.status_code == 404
    assert "no list of what it knows" in reply.json()["error"]["message"]


def test_examples_that_are_wrong_are_told_in_the_log_and_not_shown(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = "javascript:alert(1)"
    put(checkpoint, prompts=[{"prompt": "a cat", "picture": picture}])
    reply = ask(app_without_engine(model_path=str(checkpoint)), "GET", "/model_info/known_words")
    assert reply.status_code == 404
    assert "examples.json" in caplog.text


def test_the_bundled_models_list_is_that_of_its_training() -> None:
    concepts = json.loads((ROOT / "examples/train_bundled_model/concepts.json").read_text())
    found = read_examples(BUNDLED_MODEL)
    assert found.known
    assert found.known.things.keys() == concepts.keys()
    for name, also in found.known.things.items():
        assert list(also) == concepts[name].get("also", [])
    assert 8 <= len(found.prompts) <= 12
    assert all(each.picture for each in found.prompts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompts": [{"prompt": ""}]},
        {"prompts": [{"prompt": "a", "seed": 1}]},
        {"prompts": ["a cat"]},
        {"prompts": [{"prompt": "a", "picture": "https://example.com/a.png"}]},
        {"known": {"words": []}},
        {"known": {"things": {"cat": "kitten"}}},
        {"prompt": []},
    ],
)
def test_wrong_examples_are_refused_by_name(checkpoint: Path, wrong: dict[str, Any]) -> None:
    put(checkpoint, **wrong)
    with pytest.raises(InvalidCheckpoint, match=r"examples\.json: "):
        read_examples(checkpoint)


def test_a_checkpoint_needs_no_examples(checkpoint: Path) -> None:
    assert read_examples(checkpoint) == Examples()


def test_examples_are_fetched_with_a_checkpoint() -> None:
    assert "examples.json" in wanted_files(["examples.json", "README.md", "model_index.json"])


def counted(app: FastAPI, **asked: Any) -> Any:
    return ask(app, "POST", "/count_tokens", json=asked).json()


def test_the_tokens_of_a_prompt_are_counted_and_what_is_cut_is_told() -> None:
    app = app_with(ends=QueueFull("full"))
    whole = counted(app, prompt="a red heart", max_sequence_length=16)
    assert whole == {"tokens": 5, "limit": 16, "cut": ""}
    prompt = "a red heart and a rocket and a tree next to a house on a blue background, please"
    told = counted(app, prompt=prompt, max_sequence_length=7)
    assert (told["limit"], told["cut"]) == (7, prompt[prompt.index("rocket") :])


@pytest.mark.parametrize(
    "wrong", [{}, {"prompt": "a" * 32_001}, {"prompt": "a", "max_sequence_length": 0}]
)
def test_only_prompts_within_bounds_are_counted(wrong: dict[str, Any]) -> None:
    reply = ask(app_with(ends=QueueFull("full")), "POST", "/count_tokens", json=wrong)
    assert reply.status_code == 400


def test_tokens_that_only_the_engine_can_tell_are_not_guessed(checkpoint: Path) -> None:
    app = app_with(ends=QueueFull("full"), model_path=str(checkpoint))
    assert counted(app, prompt="a") == {"tokens": None, "limit": None, "cut": ""}
