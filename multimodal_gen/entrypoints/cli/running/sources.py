"""Starts or connects what makes a command's results, once all that it asks for is checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.prompts.early_checks import check_adapters, check_device
from multimodal_gen.entrypoints.cli.running.result_source import OwnEngine, ResultSource
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.expected_model import check_model_path
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.validation import check_offered

_OF_A_SERVER = ("model_path", "log_format")
"""Arguments that mean something with --server, too: the name of one of its models."""


def check_own_engine(
    args: EngineArgs,
    key_file: str | None,
    requests: Sequence[SamplingParams],
    model: ModelInfo | None,
) -> None:
    """Check what an engine needs besides the requests' parameters. Raises InvalidRequest."""
    if key_file is not None:
        raise InvalidRequest("server_key_file", key_file, "is only used with --server")
    for each in requests:
        check_offered(each, args)
    check_adapters(requests, args, model)
    check_model_path(args)
    check_device(args)


@contextmanager
def own_engine(args: EngineArgs) -> Iterator[ResultSource]:
    """Start an engine, and end it."""
    from multimodal_gen.entrypoints.python import diffusion_generator
    from multimodal_gen.launch.loading_display import LoadingDisplay

    with LoadingDisplay() as display:
        started = diffusion_generator.start_engine(args, display.show)
    with started as running:
        yield OwnEngine(running.client)


def check_server(args: EngineArgs) -> None:
    """Refuse arguments of an engine, which the server has itself. Raises InvalidRequest."""
    usual = EngineArgs()
    for field in fields(EngineArgs):
        value = getattr(args, field.name)
        if field.name not in _OF_A_SERVER and value != getattr(usual, field.name):
            allowed = "can't be combined with --server, which has an engine of its own"
            raise InvalidRequest(field.name, value, allowed)


@contextmanager
def server_engine(url: str, key_file: str | None, model: str | None) -> Iterator[ResultSource]:
    """Use a running server, and one of its models."""
    from multimodal_gen.entrypoints.cli.server.connection import (
        ServerConnection,
        api_key,
        server_url,
    )
    from multimodal_gen.entrypoints.cli.server.server_engine import ServerEngine

    yield ServerEngine(ServerConnection(server_url(url), api_key(key_file)), model)
