"""Webhooks: report ended jobs to the operator's URL.

Signed as in Standard Webhooks (github.com/standard-webhooks), with the events of OpenAI's API:
`video.completed`, `video.failed`, and the same for image jobs. Pending notices are stored in the
ledger when the job ends, so a restart loses none; one may be sent twice, with the same id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import logging
import sqlite3
import time

import httpx2

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.serving.storage.ledger import Ledger, Notice

log = logging.getLogger(__name__)
_PREFIX = "whsec_"
_TIMEOUT_S = 15.0
_AT_ONCE = 8
_LOOK_S = 5.0
"""Interval of checks for due notices; a job's end also triggers one."""
_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Delays before retries; the last one repeats."""
_GIVEN_UP_AFTER_S = 86400.0


class Webhooks:
    """Sends webhooks. Runs on one event loop."""

    def __init__(self, ledger: Ledger, url: str, secret: str) -> None:
        """Raises InvalidRequest for an invalid URL or secret."""
        self._ledger = ledger
        self._url = _address(url)
        self._key = _key(secret)
        self._news = asyncio.Event()

    def look(self) -> None:
        """Check for due notices; called when a job has ended."""
        self._news.set()

    async def run(self) -> None:
        """Send due notices until cancelled."""
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
            while True:
                self._news.clear()
                try:
                    due = await asyncio.to_thread(self._ledger.notices, time.time(), _AT_ONCE)
                    await asyncio.gather(*(self._tell(client, notice) for notice in due))
                except sqlite3.Error:  # a full disk is no reason to stop
                    log.exception("reading due webhooks failed")
                    due = []
                if len(due) < _AT_ONCE:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), _LOOK_S)

    async def _tell(self, client: httpx2.AsyncClient, notice: Notice) -> None:
        try:
            status = await self._post(client, notice)
            why = f"status {status}"
        except (httpx2.HTTPError, OSError) as error:
            status, why = 0, f"{type(error).__name__}: {error}"
        if 200 <= status < 300:
            await asyncio.to_thread(self._ledger.remove_notice, notice.job.id)
            return
        delay = _DELAYS_S[min(notice.tries, len(_DELAYS_S) - 1)]
        ended = notice.job.completed_at or 0.0
        if status == 410 or time.time() + delay > ended + _GIVEN_UP_AFTER_S:
            log.warning("giving up on the webhook for job %s: %s", notice.job.id, why)
            await asyncio.to_thread(self._ledger.remove_notice, notice.job.id)
        else:
            log.info("retrying the webhook for job %s: %s", notice.job.id, why)
            await asyncio.to_thread(self._ledger.put_off, notice.job.id, time.time() + delay)

    async def _post(self, client: httpx2.AsyncClient, notice: Notice) -> int:
        """Post a notice and return the status of the response; redirects are not followed."""
        event_id = f"evt_{notice.job.id}"
        now = int(time.time())
        body = json.dumps(
            {
                "id": event_id,
                "object": "event",
                "created_at": int(notice.job.completed_at or now),
                "type": f"{notice.job.kind}.{notice.job.status}",
                "data": {"id": notice.job.id},
            }
        )
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(now),
            "webhook-signature": _signature(self._key, f"{event_id}.{now}.{body}"),
        }
        # The response body is not read.
        async with client.stream("POST", self._url, content=body, headers=headers) as response:
            return response.status_code


def _address(url: str) -> httpx2.URL:
    with contextlib.suppress(httpx2.InvalidURL):
        parsed = httpx2.URL(url)
        if parsed.host:
            return parsed
    raise InvalidRequest("webhook_url", url, "must be http(s)://host/path")


def _key(secret: str) -> bytes:
    with contextlib.suppress(binascii.Error, ValueError):
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        if secret.startswith(_PREFIX) and key:
            return key
    raise InvalidRequest("webhook_secret", "…", f"must be {_PREFIX} followed by base64")


def _signature(key: bytes, signed: str) -> str:
    digest = hmac.digest(key, signed.encode(), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode("ascii")
