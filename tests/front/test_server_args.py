"""Bad arguments of a server are named before anything is started."""

from __future__ import annotations

import pytest

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "gpu"),
        ("dtype", "fp16"),
        ("attention_backend", "flash"),
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
