"""Groups of command-line options that commands share, as parsed and shown by --help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter, Token

from multimodal_gen.configs.arguments.devices import Device
from multimodal_gen.configs.arguments.engine_args import (
    CompileChoice,  # noqa: F401  an inherited field's annotation is looked up here
    DType,  # noqa: F401
    EngineArgs,
    LogFormat,  # noqa: F401
    ResidencyChoice,  # noqa: F401
)
from multimodal_gen.configs.arguments.fleet_args import FleetArgs
from multimodal_gen.configs.arguments.http_args import HttpArgs
from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.arguments.key_args import KeyArgs
from multimodal_gen.configs.arguments.limit_args import LimitArgs
from multimodal_gen.configs.arguments.machine_args import (
    LauncherName,  # noqa: F401
    MachineArgs,
)
from multimodal_gen.configs.attention import AttentionBackend  # noqa: F401
from multimodal_gen.configs.quantization import Quantization  # noqa: F401


def _device(kind: Any, tokens: Sequence[Token]) -> Device:
    given: Any = tokens[0].value
    return EngineArgs(device=given).device


@dataclass(frozen=True, kw_only=True)
class EngineFlags(EngineArgs):
    """EngineArgs as flags; an unsupported device is rejected with EngineArgs' reason."""

    device: Annotated[Device, Parameter(converter=_device)] = EngineArgs.device


_OF_SERVERS = (
    *("ulysses_degree", "ring_degree", "tensor_degree", "enable_cfg_parallel"),
    *("max_loaded_loras", "max_lora_gb", "batching_max_size", "max_queue_size"),
    *("step_timeout", "log_format", "attention_backend"),
)
"""Options that tune an engine which serves for long."""
if TYPE_CHECKING:
    BriefEngineFlags = EngineFlags
else:
    BriefEngineFlags = make_dataclass(
        "BriefEngineFlags",
        [
            (each.name, Annotated[each.type, Parameter(show=False)], field(default=each.default))
            for each in fields(EngineFlags)
            if each.name in _OF_SERVERS
        ],
        bases=(EngineFlags,),
        namespace={"__module__": __name__, "__doc__": EngineFlags.__doc__},
        frozen=True,
        kw_only=True,
    )
"""EngineFlags of a single command: all are accepted, those of servers are not shown."""


def _shown_as(title: str, position: int) -> Parameter:
    return Parameter(name="*", group=Group(title, sort_key=position))


EngineOptions = Annotated[EngineFlags, _shown_as("Engine", 11)]
BriefEngineOptions = Annotated[BriefEngineFlags, _shown_as("Engine (more: serve --help)", 11)]
FleetOptions = Annotated[FleetArgs, _shown_as("Models and engines", 12)]
HttpOptions = Annotated[HttpArgs, _shown_as("HTTP", 13)]
JobOptions = Annotated[JobArgs, _shown_as("Jobs and webhooks", 14)]
KeyOptions = Annotated[KeyArgs, _shown_as("Authentication", 15)]
LimitOptions = Annotated[LimitArgs, _shown_as("Limits", 16)]
MachineOptions = Annotated[MachineArgs, _shown_as("Several machines", 17)]
