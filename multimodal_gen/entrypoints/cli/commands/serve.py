"""`multimodal-gen serve`."""

from __future__ import annotations

from multimodal_gen.configs.arguments.fleet_args import FleetArgs
from multimodal_gen.configs.arguments.http_args import HttpArgs
from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.arguments.key_args import KeyArgs
from multimodal_gen.configs.arguments.limit_args import LimitArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.commands.machines import as_node
from multimodal_gen.entrypoints.cli.options.config_file import Config
from multimodal_gen.entrypoints.cli.options.option_groups import (
    EngineFlags,
    EngineOptions,
    FleetOptions,
    HttpOptions,
    JobOptions,
    KeyOptions,
    LimitOptions,
    MachineOptions,
)


def serve(
    *,
    config: Config = None,
    engine: EngineOptions = EngineFlags(),  # noqa: B008
    fleet: FleetOptions = FleetArgs(),  # noqa: B008
    http: HttpOptions = HttpArgs(),  # noqa: B008
    jobs: JobOptions = JobArgs(),  # noqa: B008
    keys: KeyOptions = KeyArgs(),  # noqa: B008
    limits: LimitOptions = LimitArgs(),  # noqa: B008
    machines: MachineOptions = MachineArgs(),  # noqa: B008
) -> int:
    """Start engines and answer HTTP requests until stopped.

    Parameters
    ----------
    config
        YAML file with options.
    """
    from multimodal_gen.entrypoints.http.server import serve as run

    def front(engine: EngineFlags, machines: MachineArgs) -> int:
        return run(ServerArgs.of(engine, fleet, http, jobs, keys, limits, machines))

    return as_node(engine, machines, "front", front)
