"""Arguments of jobs: where they are kept, for how long, and the webhook that reports their end."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.configs.redacted_url import redacted
from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class JobArgs(ArgumentGroup):
    data_dir: str | None = None
    """Folder of jobs and results. Default: one per port in the user's data folder."""
    ledger: str | None = None
    """PostgreSQL database of jobs that several servers share, postgresql://USER@HOST/DATABASE, in
    place of a file in data_dir; needs results. With a password, as a flag: see --api-key."""
    results: str | None = None
    """Where results are stored, in place of data_dir: s3://BUCKET/PATH, gs://BUCKET/PATH,
    az://CONTAINER/PATH or file:///FOLDER."""
    result_ttl: float | None = None
    """Seconds that results are kept. Default: until they are deleted or space is needed."""
    result_quota_gb: float = 20.0
    """Maximum size of each API key's results, in gigabytes; its oldest are removed first, starred
    ones last."""
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
        allowed = "must be postgresql://USER@HOST/DATABASE"
        self._require_url(allowed, ("postgresql://", "postgres://"), "ledger")
        allowed = "must be s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///PATH"
        self._require_url(allowed, ("s3://", "gs://", "az://", "file:///"), "results")
        self._check_shared()
        if self.webhook_url is not None and self.webhook_secret is None:
            raise InvalidRequest("webhook_secret", None, "must be given with webhook_url")

    def _require_url(self, allowed: str, schemes: tuple[str, ...], name: str) -> None:
        url = getattr(self, name)
        if url is not None and not url.startswith(schemes):
            raise InvalidRequest(name, redacted(url) if "://" in url else "…", allowed)

    def _check_shared(self) -> None:
        if self.ledger is None:
            return
        if self.results is None:
            allowed = "must be given with ledger: servers that share jobs share their results"
            raise InvalidRequest("results", None, f"{allowed}, such as file:///SHARED/FOLDER")
        if self.data_dir is not None:
            allowed = "can't be given with ledger: nothing is stored there; see results"
            raise InvalidRequest("data_dir", self.data_dir, allowed)
