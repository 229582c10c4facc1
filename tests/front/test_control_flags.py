"""Controls on the command line and in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import BAD_USE, app, main
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import InvalidRequest


def params_of(*tokens: str) -> SamplingParams:
    _, bound, _ = app.parse_args(["generate", "--prompt", "x", *tokens])
    params = bound.arguments["params"].common()
    assert isinstance(params, SamplingParams)
    return params


def test_a_control_is_a_name_and_a_picture_and_may_be_repeated() -> None:
    params = params_of(
        *("--control", "canny=a.png"),
        *("--control", "depth=c:\\my=x.png:0.5@0.1-.9"),
        *("--control", "union/pose=b@2.png:2"),
    )
    assert params.control == (
        ControlChoice("canny", "a.png"),
        ControlChoice("depth", "c:\\my=x.png", 0.5, 0.1, 0.9),
        ControlChoice("union", "b@2.png", 2.0, mode="pose"),
    )
    assert [ControlChoice.of(str(choice)) for choice in params.control] == [*params.control]


@pytest.mark.parametrize("text", ["canny", "=a.png", "canny=", "canny:0.5"])
def test_a_control_without_a_name_or_a_picture_is_bad_use(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--prompt", "x", "--control", text]) == BAD_USE
    assert "NAME=IMAGE" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "x", "--control-dir", "/nowhere"]) == BAD_USE
    assert "--control-dir='/nowhere': must be a folder" in capsys.readouterr().err


def test_pictures_are_opened_before_they_are_sent(tmp_path: Path) -> None:
    for number, side in enumerate((8, 16)):
        Image.new("RGB", (side, 8)).save(tmp_path / f"{number}.png")
    given = {"name": "a", "image": str(tmp_path / "0.png"), "scale": 0.5}
    params, pixels = open_pictures(
        SamplingParams(control=[given, f"b={tmp_path / '1.png'}"])  # type: ignore[arg-type]
    )
    assert params.control == (ControlChoice("a", None, 0.5), ControlChoice("b"))
    assert {name: np.shape(each) for name, each in pixels.items()} == {
        "control_1": (8, 8, 3),
        "control_2": (8, 16, 3),
    }


def test_a_picture_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"control='/nowhere\.png': can't be read"):
        open_pictures(SamplingParams(control="a=/nowhere.png"))  # type: ignore[arg-type]
