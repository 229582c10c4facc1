"""LoRAs on the command line."""

from __future__ import annotations

import pytest

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import BAD_USE, app, main


def params_of(*tokens: str) -> SamplingParams:
    _, bound, _ = app.parse_args(["generate", "--prompt", "x", *tokens])
    params = bound.arguments["params"].common()
    assert isinstance(params, SamplingParams)
    return params


def test_lora_is_a_name_or_a_name_and_a_scale_and_may_be_repeated() -> None:
    params = params_of("--lora", "pixel:0.8", "--lora", "my ink", "--seed", "7")
    assert params.lora == (LoraChoice("pixel", 0.8), LoraChoice("my ink"))
    assert params.seed == 7


def test_a_name_may_be_a_number_or_have_a_colon() -> None:
    params = params_of("--lora", "7", "--lora", "a:b", "--lora", "c:d:-0.5")
    assert params.lora == (LoraChoice("7"), LoraChoice("a:b"), LoraChoice("c:d", -0.5))


def test_a_target_is_a_component_after_the_scale_or_the_name() -> None:
    params = params_of(
        "--lora", "a:0.5@transformer_2", "--lora", "b@text_encoder", "--lora", "c@2x"
    )
    assert params.lora == (
        LoraChoice("a", 0.5, "transformer_2"),
        LoraChoice("b", 1.0, "text_encoder"),
        LoraChoice("c@2x"),
    )
    assert [str(choice) for choice in params.lora] == [
        "a:0.5@transformer_2",
        "b:1.0@text_encoder",
        "c@2x:1.0",
    ]


def test_a_lora_without_a_name_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "x", "--lora", ":0.5"]) == BAD_USE
    assert "NAME:SCALE" in capsys.readouterr().err


def test_a_lora_dir_that_is_not_there_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "x", "--lora-dir", "/nowhere"]) == BAD_USE
    assert "--lora-dir='/nowhere': must be a folder" in capsys.readouterr().err
