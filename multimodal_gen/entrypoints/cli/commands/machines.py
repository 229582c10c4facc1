"""`multimodal-gen keys` and `multimodal-gen engine`: engines on several machines, or for fronts
elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.cli.options.config_file import Config
from multimodal_gen.entrypoints.cli.options.option_groups import (
    EngineFlags,
    EngineOptions,
    MachineOptions,
)
from multimodal_gen.errors import InvalidRequest


def keys(file: Annotated[str, Parameter(show_default=False)], /) -> int:
    """Make keys that let other machines in.

    Parameters
    ----------
    file
        File to create, for the side that listens: `engine`, and node 0 of several. FILE.client is
        made beside it, for the sides that connect; they may use FILE, too.
    """
    from multimodal_gen.messages.links import LinkKeys

    made, path = LinkKeys.new(), user_path(file)
    for content, name in ((made, path), (made.of_client, Path(f"{path}.client"))):
        try:
            content.write(name)
        except FileExistsError as error:
            raise InvalidRequest("file", str(name), "exists already") from error
        print(name)
    return 0


def as_node(
    engine: EngineFlags,
    machines: MachineArgs,
    name: str,
    run: Callable[[EngineFlags, MachineArgs], int],
) -> int:
    """Run what this machine is to run: `run` on node 0, whose process is called `name` in logs, or
    its share of the ranks. What torchrun tells is taken into account."""
    from multimodal_gen.launch.machines.node import run_node
    from multimodal_gen.launch.machines.torchrun import is_idle_worker, with_torchrun
    from multimodal_gen.observability.logging import configure_logging

    if is_idle_worker(os.environ):
        return 0
    engine, machines = with_torchrun(engine, machines, os.environ)
    machines.check_ranks(engine.num_gpus)
    if machines.node_rank:
        configure_logging(f"node {machines.node_rank}", engine.log_format)
        return run_node(engine, machines)
    configure_logging(name, engine.log_format)
    return run(engine, machines)


def engine(
    *,
    listen: str,
    config: Config = None,
    engine: EngineOptions = EngineFlags(),  # noqa: B008
    machines: MachineOptions = MachineArgs(),  # noqa: B008
) -> int:
    """Run an engine for fronts elsewhere (`serve --engine`), and a new one whenever it is lost.

    Parameters
    ----------
    listen
        tcp://HOST:PORT to listen on. Only who has the keys of --key-file is answered.
    config
        YAML file with options.
    """
    from multimodal_gen.launch.machines.standalone import run

    return as_node(engine, machines, "engine", partial(run, listen=listen))
