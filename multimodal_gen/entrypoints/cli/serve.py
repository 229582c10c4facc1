"""`multimodal-gen serve`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.config_file import Config


def serve(
    *,
    config: Config = None,
    server: Annotated[ServerArgs, Parameter(name="*")] = ServerArgs(),  # noqa: B008
) -> int:
    """Start an engine and answer HTTP requests until it is told to stop.

    Parameters
    ----------
    config
        A YAML file with options.
    """
    from multimodal_gen.entrypoints.http.server import serve as run
    from multimodal_gen.observability.logging import configure_logging

    configure_logging("front", server.log_format)
    return run(server)
