"""A receiver of webhooks."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()


class Receiver:
    """Keeps what is posted to it; answers with the next of `statuses`, then with the last one."""

    def __init__(self) -> None:
        self.posted: list[tuple[dict[str, str], str]] = []
        self.statuses = [204]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.posted.append((dict(self.headers), body))
                at = min(len(receiver.posted), len(receiver.statuses)) - 1
                self.send_response(receiver.statuses[at])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posted]

    async def heard(self, count: int) -> None:
        end = time.monotonic() + 30
        while len(self.posted) < count:
            assert time.monotonic() < end, self.posted
            await asyncio.sleep(0.02)
