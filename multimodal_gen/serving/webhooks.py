"""Tells an address of the operator's that jobs have ended.

Signed as Standard Webhooks has it (github.com/standard-webhooks), with the events of OpenAI's API:
`video.completed`, `video.failed`, and the same of image jobs. What is to be told stands in the
ledger from when the job ended, so a restart loses none; one may be told twice, under the same id.
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
from multimodal_gen.serving.ledger import Ledger, Notice

log = logging.getLogger(__name__)
_PREFIX = "whsec_"
_TIMEOUT_S = 15.0
_AT_ONCE = 8
_LOOK_S = 5.0
"""How often the ledger is asked what is due, besides when a job ends."""
_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Before each further try; the last one counts for all that follow."""
_GIVEN_UP_AFTER_S = 86400.0


class Webhooks:
    """Lives on one event loop."""

    def __init__(self, ledger: Ledger, url: str, secret: str) -> None:
        """Raises InvalidRequest for an address or a secret that is none."""
        self._ledger = ledger
        self._url = _address(url)
        self._key = _key(secret)
        self._news = asyncio.Event()

    def look(self) -> None:
        """A job has ended."""
        self._news.set()

    async def run(self) -> None:
        """Tell what is due, until this is cancelled."""
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
            while True:
                self._news.clear()
                try:
                    due = await asyncio.to_thread(self._ledger.notices, time.time(), _AT_ONCE)
                    await asyncio.gather(*(self._tell(client, notice) for notice in due))
                except sqlite3.Error:  # a full disk, which is no reason to end
                    log.exception("webhooks could not be looked up")
                    due = []
                if len(due) < _AT_ONCE:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), _LOOK_S)

    async def _tell(self, client: httpx2.AsyncClient, notice: Notice) -> None:
        try:
            status = await self._post(client, notice)
            why = f"it answered {status}"
        except (httpx2.HTTPError, OSError) as error:
            status, why = 0, f"{type(error).__name__}: {error}"
        if 200 <= status < 300:
            await asyncio.to_thread(self._ledger.remove_notice, notice.job.id)
            return
        delay = _DELAYS_S[min(notice.tries, len(_DELAYS_S) - 1)]
        ended = notice.job.completed_at or 0.0
        if status == 410 or time.time() + delay > ended + _GIVEN_UP_AFTER_S:
            log.warning("the webhook is not told of job %s any more: %s", notice.job.id, why)
            await asyncio.to_thread(self._ledger.remove_notice, notice.job.id)
        else:
            log.info("the webhook is told of job %s again: %s", notice.job.id, why)
            await asyncio.to_thread(self._ledger.put_off, notice.job.id, time.time() + delay)

    async def _post(self, client: httpx2.AsyncClient, notice: Notice) -> int:
        """The status of the answer; redirects are not followed."""
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
        # What stands in the answer is not read.
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
    raise InvalidRequest("webhook_secret", "…", f"must be {_PREFIX} and then base64")


def _signature(key: bytes, signed: str) -> str:
    digest = hmac.digest(key, signed.encode(), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode("ascii")
