"""Arguments of a server with several engines: the models that it serves, and where they run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.errors import InvalidRequest

_ADDRESS = re.compile(r"tcp://[^\s/]+:\d{1,5}")


@dataclass(frozen=True, kw_only=True)
class FleetArgs(ArgumentGroup):
    model: tuple[str, ...] = ()
    """NAME=PATH: serve this model under this name. Repeatable; the first one is the default. In a
    YAML file a mapping, whose values can have engine options: {NAME: {model_path: PATH, num_gpus:
    2, replicas: 2}}."""
    replicas: int = 1
    """Engines of each model, each on devices of its own."""
    engine: tuple[str, ...] = ()
    """tcp://HOST:PORT of an engine that runs elsewhere. Repeatable; needs --engine-key-file."""
    engine_key_file: str | None = None
    """File with the keys of those engines."""
    memory_budget_gb: float | None = None
    """GB of weights to keep loaded: other models are loaded on demand in place of the least
    recently used ones. Default: what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1("replicas")
        self.require("must be more than 0 (GB)", lambda size: size > 0, "memory_budget_gb")
        for address in self.engine:
            if not _ADDRESS.fullmatch(address):
                raise InvalidRequest("engine", address, "must be tcp://HOST:PORT")
        if self.engine and self.engine_key_file is None:
            raise InvalidRequest("engine_key_file", None, "must be given with engine")
