"""Arguments of jobs: where they are kept, for how long, and the webhook that reports their end."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class JobArgs(ArgumentGroup):
    data_dir: str | None = None
    """Folder of jobs and results. Default: one per port in the user's data folder."""
    result_ttl: float = 86400.0
    """Seconds that results are kept."""
    result_quota_gb: float = 20.0
    """Maximum size of each API key's results, in gigabytes; its oldest are removed first."""
    drain_timeout: float = 30.0
    """Seconds that running requests have to finish when the server is stopped."""
    webhook_url: str | None = None
    """URL that receives a signed POST when a job has completed or failed."""
    webhook_secret: str | None = None
    """Secret that webhooks are signed with: whsec_ and base64. Required with --webhook-url. As a
    flag: see --api-key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_from_0("result_ttl", "result_quota_gb", "drain_timeout")
        allowed = "must be http(s)://host/path"
        self.require(allowed, lambda url: url.startswith(("http://", "https://")), "webhook_url")
        if self.webhook_url is not None and self.webhook_secret is None:
            raise InvalidRequest("webhook_secret", None, "must be given with webhook_url")
