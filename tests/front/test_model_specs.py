"""What a server is told to serve, by flags and in a YAML file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.http import server
from multimodal_gen.errors import InvalidRequest


def test_without_a_model_it_is_the_bundled_one() -> None:
    (only,) = ServerArgs().models
    assert (only.name, only.engine.model_path, only.replicas) == (None, None, 1)


def test_without_a_model_but_with_engines_elsewhere_there_is_none_here() -> None:
    assert ServerArgs(engine=("tcp://far:5000",), engine_key_file="keys").models == ()


def test_models_are_named_and_share_the_other_options() -> None:
    args = ServerArgs(model=("a=x/a", "b=x/b"), replicas=2, dtype="float32", revision="main")
    assert [(m.name, m.engine.model_path, m.replicas) for m in args.models] == [
        ("a", "x/a", 2),
        ("b", "x/b", 2),
    ]
    assert {m.engine.dtype for m in args.models} == {"float32"}
    assert {m.engine.revision for m in args.models} == {None}, "a revision is of one checkpoint"


def test_the_model_of_model_path_comes_first() -> None:
    models = ServerArgs(model_path="x/a", model=("b=x/b",)).models
    assert [(m.name, m.engine.model_path) for m in models] == [(None, "x/a"), ("b", "x/b")]


def test_a_model_can_have_options_of_its_own() -> None:
    given = 'b={"model_path": "x/b", "num_gpus": 2, "replicas": 3, "component": ["vae=v.sft"]}'
    (b,) = ServerArgs(model=(given,)).models
    assert (b.replicas, b.engine.num_gpus, b.engine.component) == (3, 2, ("vae=v.sft",))


def test_a_yaml_file_has_models_as_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[ServerArgs] = []
    monkeypatch.setattr(server, "serve", lambda args: taken.append(args) or 0)
    config = tmp_path / "serve.yaml"
    config.write_text("model:\n  a: x/a\n  b: {model_path: x/b, dtype: bfloat16}\nreplicas: 2\n")
    assert main(["serve", "--config", str(config)]) == 0
    a, b = taken[0].models
    assert (a.name, a.engine.model_path, a.engine.dtype) == ("a", "x/a", "auto")
    assert (b.name, b.engine.model_path, b.engine.dtype, b.replicas) == ("b", "x/b", "bfloat16", 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a",), "model='a': must be NAME=PATH"),
        (("a=x", "a=y"), "model='a': must be NAME=PATH, each NAME once"),
        (("a={",), "model='{': a: "),
        (('a={"colour": 1}',), "model='colour': a can have replicas and model_path"),
        (('a={"replicas": 0}',), "replicas=0: of a: must be at least 1"),
        (('a={"dtype": "int3"}',), "dtype='int3': must be one of"),
    ],
)
def test_a_mistake_is_named(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        ServerArgs(model=given)


def test_engines_elsewhere_need_an_address_and_keys() -> None:
    with pytest.raises(InvalidRequest, match="must be tcp://HOST:PORT"):
        ServerArgs(engine=("far:5000",), engine_key_file="keys")
    with pytest.raises(InvalidRequest, match="engine_key_file"):
        ServerArgs(engine=("tcp://far:5000",))
