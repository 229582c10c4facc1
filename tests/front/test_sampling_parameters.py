"""Contract: a sampling parameter is declared once, and everything else follows from that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import ROOT
from snippets import titled

import multimodal_gen
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.parameter_reference import reference_rows
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.write_types import FILES
from multimodal_gen.entrypoints.http.openai.schema import EditsRequest, ImagesRequest
from multimodal_gen.entrypoints.http.openai.video_schema import VideosRequest
from multimodal_gen.entrypoints.python.engine_keywords import EngineKeywords
from multimodal_gen.entrypoints.python.inputs import InputKeywords
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.messages.validation import resolve, validate

INPUTS = InputKeywords.__annotations__.keys()
PACKAGE = Path(multimodal_gen.__file__).parent
MODEL = ModelInfo(
    name="a",
    family="a",
    tasks=("text-to-image",),
    defaults=Defaults(width=64, height=64, num_inference_steps=2),
    limits=Limits(),
    size_multiple=16,
)
DECLARATION = textwrap.indent(
    titled(ROOT / "CONTRIBUTING.md", "configs/sampling_params.py"), "    "
)
USES = """
import contextlib, dataclasses, io, json, runpy
runpy.run_module("multimodal_gen.configs.write_types", run_name="__main__")

from multimodal_gen import SamplingParams
from multimodal_gen.configs.parameter_reference import reference_rows
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.http.hugging_face.body import understood
from multimodal_gen.entrypoints.http.openai.schema import ImagesRequest
from multimodal_gen.entrypoints.python.engine_keywords import EngineKeywords
from multimodal_gen.entrypoints.python.inputs import InputKeywords
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.messages.validation import resolve

def refusal(call):
    try:
        call()
    except InvalidRequest as error:
        return error.message

def model(parameters, **defaults):
    return ModelInfo(
        name="a", family="a", tasks=("text-to-image",), parameters=parameters, limits=Limits(),
        size_multiple=16, defaults=Defaults(width=64, height=64, num_inference_steps=2, **defaults),
    )

sharp, plain = model(("sharpness",), sharpness=20), model(())
with contextlib.redirect_stdout(io.StringIO()) as help:
    main(["generate", "--help"])
body = ImagesRequest(prompt="a", sharpness=30)
hugging_face = {"inputs": "a", "parameters": {"sharpness": 40}}
print(json.dumps({
    "help": " ".join(help.getvalue().replace("│", " ").split()),
    "schema": ImagesRequest.model_json_schema()["properties"]["sharpness"],
    "sent": [params.sharpness for params in body.sampling_params()],
    "hugging face": understood(b"", hugging_face, sharp, 100).params.sharpness,
    "keyword": SamplingKeywords.__annotations__["sharpness"].__forward_arg__,
    "default": resolve(SamplingParams(prompt="a"), sharp).sharpness,
    "type": refusal(lambda: SamplingParams(sharpness="very")),
    "range": refusal(lambda: resolve(SamplingParams(sharpness=71), sharp)),
    "unknown": refusal(lambda: resolve(SamplingParams(sharpness=30), plain)),
    "row": [dataclasses.asdict(row) for row in reference_rows() if row.name == "sharpness"],
}))
"""


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of one more declaration in a copy of the package."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "assets", "runtime", "benchmarks")
    shutil.copytree(PACKAGE, root / "multimodal_gen", ignore=ignored)
    file = root / "multimodal_gen/configs/sampling_params.py"
    before, after = file.read_text().split("    def __post_init__", 1)
    file.write_text(f"{before}{DECLARATION}\n    def __post_init__{after}")
    done = subprocess.run(
        [sys.executable, "-c", USES],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_declaration_makes_a_flag_with_help(uses: dict[str, Any]) -> None:
    assert "--sharpness INT How crisp edges are (per cent, 5 to 70)." in uses["help"]


def test_a_declaration_makes_a_field_of_http_bodies(uses: dict[str, Any]) -> None:
    number = {"type": "integer", "minimum": 5, "maximum": 70}
    assert uses["schema"]["anyOf"] == [number, {"type": "null"}]
    assert uses["schema"]["description"] == "How crisp edges are (per cent, 5 to 70)."
    assert (uses["sent"], uses["hugging face"]) == ([30], 40)


def test_a_declaration_makes_a_typed_keyword(uses: dict[str, Any]) -> None:
    assert uses["keyword"] == "int | None"


def test_a_declaration_makes_a_default_of_models(uses: dict[str, Any]) -> None:
    assert uses["default"] == 20


def test_a_declaration_makes_checks(uses: dict[str, Any]) -> None:
    assert uses["type"] == "sharpness='very': must be a whole number"
    assert uses["range"] == "sharpness=71: must be 5 to 70"
    assert uses["unknown"].startswith("sharpness=30: not supported by a (text-to-image)")


def test_a_declaration_makes_a_row_of_the_reference(uses: dict[str, Any]) -> None:
    (row,) = uses["row"]
    assert row == {
        "name": "sharpness",
        "flag": "--sharpness",
        "type": "integer",
        "unit": "per cent",
        "allowed": "5 to 70",
        "default": "`defaults.sharpness`",
        "needs": "a model that lists it in `parameters`",
        "help": "How crisp edges are.",
        "over_http": True,
    }


@pytest.mark.parametrize("path", FILES)
def test_types_are_written_anew_after_a_declaration_changes(path: str) -> None:
    hint = "run python -m multimodal_gen.configs.write_types"
    assert (PACKAGE / path).read_text() == FILES[path](), hint


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_a_declaration_says_of_models_is_there(name: str) -> None:
    spec = PARAMETERS[name].spec
    for place in (spec.lowest, spec.highest, spec.multiple_of, spec.one_of):
        if place and isinstance(place, str):
            attrgetter(place)(MODEL)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_parameters_of_a_family_are_declared_as_not_every_models(family: Any) -> None:
    for name in family.parameters:
        # Masks of images follow from a model's tasks, but those of videos from its parameters.
        assert "parameter" in PARAMETERS[name].spec.needs or name == "mask_path"


DESCRIBED_BY_BODIES = {
    ImagesRequest: {"seed", "num_outputs_per_prompt", "quality", "upscale", "lora", "control"},
    EditsRequest: {"seed", "num_outputs_per_prompt", "quality", "upscale", "lora", "control"},
    VideosRequest: {"upscale", "lora", "control"},
}
"""They have another type there, or further values."""


@pytest.mark.parametrize("body", DESCRIBED_BY_BODIES)
def test_http_bodies_have_every_parameter_but_paths(body: Any) -> None:
    properties = body.model_json_schema()["properties"]
    for name, parameter in PARAMETERS.items():
        if parameter.spec.local:
            assert properties[name]["type"] == "null"
        else:
            told = properties[name]["description"]
            assert (told == parameter.summary) == (name not in DESCRIBED_BY_BODIES[body]), told


def test_keywords_are_all_parameters_but_the_prompt() -> None:
    names = [name for name in SamplingKeywords.__annotations__ if name not in INPUTS]
    assert ["prompt", *names] == list(PARAMETERS)
    assert SamplingKeywords.__annotations__.keys() >= INPUTS


def test_keywords_of_from_pretrained_are_all_arguments_of_an_engine() -> None:
    names = ["model_path", *EngineKeywords.__annotations__]
    assert names == [field.name for field in fields(EngineArgs)]


def test_the_reference_has_every_parameter() -> None:
    assert [row.name for row in reference_rows()] == list(PARAMETERS)
    assert all(row.help and row.type for row in reference_rows())


def test_minus_one_is_a_random_seed_everywhere() -> None:
    seeds = {resolve(SamplingParams(seed=-1), MODEL).seed for _ in range(3)}
    assert len(seeds) == 3
    assert min(seed for seed in seeds if seed is not None) >= 0


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"width": 10**5000}, "width"),
        ({"guidance_scale": 10**400}, "guidance_scale"),
        ({"deadline_s": 10**400}, "deadline_s"),
        ({"lora": {"name": "a", "scale": 10**400}}, "lora"),
        ({"lora": {"name": "a", "scale": float("nan")}}, "lora"),
        ({"lora": "\ud800"}, "lora"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"negative_prompt": "\ud800"}, "negative_prompt"),
    ],
)
def test_values_without_measure_are_refused_with_the_name_of_their_field(
    given: dict[str, Any], field: str
) -> None:
    model = msgspec.structs.replace(MODEL, parameters=("lora",))
    with pytest.raises(InvalidRequest) as caught:
        resolve(SamplingParams(**given), model)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["guidance_scale", "num_inference_steps", "width", "seed"])
def test_a_value_that_the_client_must_fill_in_is_checked_by_rank_0(name: str) -> None:
    params = replace(resolve(SamplingParams(), MODEL), **{name: None})
    with pytest.raises(InvalidRequest) as caught:
        validate(params, MODEL)
    assert caught.value.field == name
