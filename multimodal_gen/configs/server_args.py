"""All arguments of a server, as flags, YAML keys and environment variables."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.fleet_args import FleetArgs
from multimodal_gen.configs.arguments.http_args import HttpArgs
from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.arguments.key_args import KeyArgs
from multimodal_gen.configs.arguments.limit_args import LimitArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.declarations.short_repr import short_repr
from multimodal_gen.configs.declarations.similar_names import suggesting_names
from multimodal_gen.configs.model_spec import ModelSpec, model_specs
from multimodal_gen.configs.redacted_url import redacted

SECRETS = ("api_key", "admin_key", "webhook_url", "webhook_secret")
"""Arguments that are never shown, nor passed to ranks. A webhook's URL can hold a token."""
URLS = ("ledger", "results")
"""Arguments that are shown without the password that they can hold."""


@suggesting_names
@dataclass(frozen=True, kw_only=True)
class ServerArgs(LimitArgs, KeyArgs, JobArgs, HttpArgs, FleetArgs, MachineArgs, EngineArgs):
    """Arguments of `serve`. Code that needs only one group takes that group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        engines = sum(spec.replicas for spec in self.models)
        if engines > 1:
            self.require("must be 1 with several engines here", lambda n: n == 1, "nnodes")

    def __repr__(self) -> str:
        return short_repr(self, secret=(*SECRETS, *URLS))

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models that run here; the first one is the default. Raises InvalidRequest."""
        own, elsewhere = EngineArgs.of(self), bool(self.engine)
        return model_specs(self.model, own, self.replicas, elsewhere=elsewhere)

    @property
    def without_secrets(self) -> ServerArgs:
        """A copy without secrets, which can be shown."""
        urls = {name: redacted(url) for name in URLS if (url := getattr(self, name)) is not None}
        return ServerArgs(**{**vars(self), **dict.fromkeys(SECRETS), **urls})
