"""Specification of what is served: a model, its engines' arguments, and how many engines it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import InvalidRequest

_FORM = "must be NAME=PATH, each NAME once, such as flux=black-forest-labs/FLUX.1-dev"
_OF_A_CHECKPOINT = {"model_path": None, "base_model_path": None, "component": (), "revision": None}
"""Options that no other model shares."""


@dataclass(frozen=True)
class ModelSpec:
    """A model that is configured; without a name it is called what its engine calls it."""

    name: str | None
    engine: EngineArgs
    replicas: int = 1

    @classmethod
    def parse(cls, text: str, common: EngineArgs, replicas: int) -> ModelSpec:
        """Read `NAME=PATH` or `NAME={options in JSON}`; options that are not given are those of
        `common`. Raises InvalidRequest."""
        name, mark, given = text.partition("=")
        if not (name and mark and given):
            raise InvalidRequest("model", text, _FORM)
        options = _options(name, given) if given.startswith("{") else {"model_path": given}
        count = options.pop("replicas", replicas)
        known = [field.name for field in fields(EngineArgs)]
        if unknown := options.keys() - set(known):
            allowed = f"{name} can have replicas and {', '.join(known)}"
            raise InvalidRequest("model", min(unknown), allowed)
        if not isinstance(count, int) or count < 1:
            raise InvalidRequest("replicas", count, f"of {name}: must be at least 1")
        return cls(name, replace(common, **{**_OF_A_CHECKPOINT, **options}), count)


def model_specs(
    given: tuple[str, ...], common: EngineArgs, replicas: int, *, elsewhere: bool
) -> tuple[ModelSpec, ...]:
    """All models of a server; the first one is the default. Without any, the bundled one, unless
    there are engines `elsewhere`. Raises InvalidRequest."""
    named = tuple(ModelSpec.parse(text, common, replicas) for text in given)
    names = [spec.name for spec in named]
    for spec in named:
        if names.count(spec.name) > 1:
            raise InvalidRequest("model", spec.name, _FORM)
    if common.model_path is None and (named or elsewhere):
        return named
    return (ModelSpec(None, common, replicas), *named)


def _options(name: str, text: str) -> dict[str, Any]:
    try:
        options = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest("model", text, f"{name}: {error}") from error
    return {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}


def as_options(models: object) -> object:
    """A YAML mapping of models as values of `--model`; anything else unchanged."""
    if not isinstance(models, Mapping):
        return models
    return [
        f"{name}={of if isinstance(of, str) else msgspec.json.encode(of).decode()}"
        for name, of in models.items()
    ]
