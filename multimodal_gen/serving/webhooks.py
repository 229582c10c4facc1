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
import math
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import httpx2

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.serving.storage.ledger import Ledger, Notice
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS, persist

log = logging.getLogger(__name__)
_PREFIX = "whsec_"
_TIMEOUT_S = 15.0
"""For a whole delivery, and for each of its waits."""
_LEASE_S = 60.0
"""Time for a delivery, and for its outcome to be stored, before another server tries."""
_AT_ONCE = 8
_LOOK_S = 5.0
"""Interval of checks for due notices; a job's end also triggers one."""
_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Delays before retries; the last one repeats."""
_GIVEN_UP_AFTER_S = 86400.0
"""Sum of the delays before the last try, whatever the system's clock says."""


class Webhooks:
    """Sends webhooks. Runs on one event loop."""

    def __init__(self, ledger: Ledger, url: str, secret: str) -> None:
        """Raises InvalidRequest for an invalid URL or secret."""
        self._ledger = ledger
        self._url = _address(url)
        self._key = _key(secret)
        self._news = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        """By job: deliveries, none of which waits for another."""

    def look(self) -> None:
        """Check for due notices; called when a job has ended."""
        self._news.set()

    async def run(self) -> None:
        """Send due notices until cancelled."""
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
            try:
                await persist(self._ledger.all_due, _never)
                while True:
                    self._news.clear()
                    await self._send_due(client)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await self._news.wait()
            finally:
                for sending in self._sending.values():
                    sending.cancel()
                await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def _send_due(self, client: httpx2.AsyncClient) -> None:
        """Start as many deliveries as may be under way at once."""
        if (free := _AT_ONCE - len(self._sending)) <= 0:
            return
        try:
            due = await asyncio.to_thread(self._ledger.claim_notices, free, _LEASE_S)
        except STORAGE_ERRORS as error:  # a full disk is no reason to stop
            log.warning("due webhooks can't be read: %s", error)
            return
        for notice in due:
            if notice.job.id not in self._sending:
                self._start(notice.job.id, self._tell(client, notice))

    def _start(self, job_id: str, delivery: Coroutine[Any, Any, None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            del self._sending[job_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the webhook for job %s failed", job_id, exc_info=error)
            else:
                self.look()

        self._sending[job_id] = asyncio.get_running_loop().create_task(delivery)
        self._sending[job_id].add_done_callback(ended)

    async def _tell(self, client: httpx2.AsyncClient, notice: Notice) -> None:
        """Deliver a notice, and record the outcome, however long storage refuses it."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):  # also of a receiver that drips
                status = await self._post(client, notice)
            why = f"status {status}"
        except Exception as error:
            status, why = 0, f"{type(error).__name__}: {error}"
        job_id, delay = notice.job.id, _delay(notice.tries)
        done = partial(self._ledger.remove_notice, job_id)
        if 200 <= status < 300:
            await persist(done, _never)
        elif status == 410 or sum(map(_delay, range(notice.tries + 1))) > _GIVEN_UP_AFTER_S:
            log.warning("giving up on the webhook for job %s: %s", job_id, why)
            await persist(done, _never)
        else:
            log.info("retrying the webhook for job %s: %s", job_id, why)
            await persist(partial(self._ledger.put_off, job_id, delay), _never)

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


def _delay(tries: int) -> float:
    """Seconds until the next try, after `tries` failed ones and another."""
    return _DELAYS_S[min(tries, len(_DELAYS_S) - 1)]


def _never() -> float:
    return math.inf


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
