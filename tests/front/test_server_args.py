"""Arguments of a server: bad ones are named before anything is started."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.fleet_args import FleetArgs
from multimodal_gen.configs.arguments.http_args import HttpArgs
from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.arguments.key_args import KeyArgs
from multimodal_gen.configs.arguments.limit_args import LimitArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "gpu"),
        ("dtype", "fp16"),
        ("attention_backend", "xformers"),
        ("num_gpus", "2"),
        ("num_gpus", 1.5),
        ("num_gpus", 0),
        ("step_timeout", float("nan")),
        ("step_timeout", float("inf")),
        ("step_timeout", 0),
        ("drain_timeout", -1),
        ("result_ttl", float("inf")),
        ("result_quota_gb", float("nan")),
        ("data_dir", 7),
        ("port", 65536),
        ("port", None),
        ("api_key", ""),
        ("admin_key", ""),
        ("max_body_bytes", 0),
        ("max_input_pixels", 0),
        ("max_frames", 0),
        ("max_request_s", 0.0),
        ("client_timeout", 0.0),
        ("allowed_media_hosts", "example.com"),
        ("log_format", "xml"),
        ("model_path", 7),
        ("component", "vae=ae.sft"),
        ("component", ["vae"]),
        ("component", ["vae="]),
        ("component", ["=ae.sft"]),
        ("component", ["vae=a.sft", "vae=b.sft"]),
        ("enable_cfg_parallel", "yes"),
    ],
)
def test_bad_input_is_the_callers_error(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field) as error:
        ServerArgs(**{field: value})
    assert error.value.field == field


def test_what_is_allowed_instead_is_said() -> None:
    with pytest.raises(InvalidRequest, match="device='tpu': must be one of auto, cpu, cuda"):
        ServerArgs(device="tpu")  # type: ignore[arg-type]


def test_ranks_can_not_share_rows_and_all_share_a_sequence() -> None:
    with pytest.raises(InvalidRequest, match="ulysses_degree=4: leaves no ranks"):
        ServerArgs(num_gpus=4, ulysses_degree=4, enable_cfg_parallel=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tensor_degree": 4}, "divide num_gpus=12 / ulysses_degree=2 / ring_degree=2$"),
        ({"tensor_degree": 0}, "tensor_degree=0: must be at least 1"),
        (
            {"enable_cfg_parallel": True},
            "ulysses_degree=2: .*: num_gpus=12 / ulysses_degree=2 / ring_degree=2 must be even",
        ),
    ],
)
def test_which_degrees_leave_too_few_ranks_is_said(arguments: Mapping[str, Any], said: str) -> None:
    given = {"num_gpus": 12, "ulysses_degree": 2, "ring_degree": 2, **arguments}
    with pytest.raises(InvalidRequest, match=said):
        ServerArgs(**given)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("mps", "not supported, as MPS has no float64, .*; use cpu"),
        ("rocm", "under the name cuda, with a ROCm build of torch; use cuda"),
        ("hip", "under the name cuda, with a ROCm build of torch; use cuda"),
    ],
)
def test_a_device_that_is_refused_comes_with_its_reason(device: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"device='{device}': .*{reason}"):
        ServerArgs(device=device)  # type: ignore[arg-type]


GROUPS = (EngineArgs, FleetArgs, HttpArgs, JobArgs, KeyArgs, LimitArgs, MachineArgs)


def test_every_argument_belongs_to_one_group() -> None:
    names = [field.name for group in GROUPS for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))
    assert set(names) == {field.name for field in dataclasses.fields(ServerArgs)}


def test_groups_make_up_a_servers_arguments_and_can_be_taken_from_them() -> None:
    groups = [
        EngineArgs(num_gpus=2),
        HttpArgs(port=1),
        JobArgs(webhook_url="http://a/b", webhook_secret="whsec_x"),
        KeyArgs(api_key="x"),
        LimitArgs(max_steps=3),
    ]
    args = ServerArgs.of(*groups)
    assert (args.num_gpus, args.port, args.api_key, args.max_steps) == (2, 1, "x", 3)
    assert [type(group).of(args) for group in groups] == groups


def test_what_is_shown_of_a_servers_arguments_has_no_secrets() -> None:
    given = {"api_key": "k1", "admin_key": "k2", "webhook_secret": "k3", "webhook_url": "http://k4"}
    args = ServerArgs(port=1, **given)  # type: ignore[arg-type]
    assert args.without_secrets == ServerArgs(port=1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hidden@host:5/db", "postgresql://me:…@host:5/db"),
        (
            "postgresql://me:hid%40den@host/db?sslmode=require",
            "postgresql://me:…@host/db?sslmode=require",
        ),
        ("postgresql://me@host/db?password=hidden&x=1", "postgresql://me@host/db?password=…&x=1"),
        ("postgres://host/db", "postgres://host/db"),
    ],
)
@pytest.mark.parametrize("mistyped", [":", ":x//", "//", "+x://"])
def test_the_ledgers_password_is_not_shown(url: str, shown: str, mistyped: str) -> None:
    args = ServerArgs(ledger=url, results="file:///shared")
    assert args.without_secrets.ledger == shown
    with pytest.raises(InvalidRequest) as caught:
        ServerArgs(ledger=url.replace("://", mistyped), results="file:///shared")
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"ledger": "postgresql://host/db"}, "results"),
        ({"ledger": "postgresql://h/d", "results": "file:///x", "data_dir": "x"}, "data_dir"),
        ({"ledger": "sqlite:///jobs.sqlite", "results": "file:///x"}, "ledger"),
    ],
)
def test_a_shared_ledger_needs_shared_results_and_no_folder(
    given: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}="):
        ServerArgs(**given)  # type: ignore[arg-type]
