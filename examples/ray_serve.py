"""Servers under Ray Serve, which starts, watches and scales them.

    serve run deploy/ray-serve.yaml

Each replica is a `multimodal-gen serve` of its own, with all of its protocols: HTTP goes through.
Jobs are known to all replicas with `--ledger` and `--results`, and else to the one that has them.
Needs `pip install "ray[serve]"` beside the extra `ray`.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2 as httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

try:
    from ray import serve
except ImportError as error:
    sys.exit(f'{error}: pip install "ray[serve]"')

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

http = FastAPI(docs_url=None, openapi_url=None)


@serve.deployment
@serve.ingress(http)
class Server:
    """Starts a server and relays requests to it. `options`: those of `multimodal-gen serve`."""

    OF_THE_CONNECTION = ("connection", "host", "keep-alive", "transfer-encoding", "upgrade")

    def __init__(self, options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "multimodal_gen.entrypoints.cli", "serve", "--port", "0"]
        self._server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        self._client = httpx.AsyncClient(base_url=self._url(), timeout=None)

    def _url(self) -> str:
        """The address that it prints once it has loaded the model."""
        assert self._server.stdout is not None
        for line in self._server.stdout:
            if " at http://" in line:
                return line.rpartition(" at ")[2].strip()
        raise RuntimeError(f"the server ended with status {self._server.wait()}")

    def check_health(self) -> None:
        """Ray starts another replica if this raises."""
        if (status := self._server.poll()) is not None:
            raise RuntimeError(f"the server ended with status {status}")

    def __del__(self) -> None:
        self._server.terminate()

    @http.api_route("/{path:path}", methods=METHODS)
    async def relay(self, request: Request, path: str) -> Response:
        asked = self._client.build_request(
            request.method,
            httpx.URL(path="/" + path, query=request.url.query.encode()),
            headers=self._kept(request.headers),
            content=request.stream(),
        )
        reply = await self._client.send(asked, stream=True)
        return StreamingResponse(
            reply.aiter_raw(),
            reply.status_code,
            self._kept(reply.headers),
            background=BackgroundTask(reply.aclose),
        )

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Headers that go from one connection to the next."""
        return {k: v for k, v in headers.items() if k not in self.OF_THE_CONNECTION}


def app(settings: Mapping[str, Sequence[str]]) -> serve.Application:
    """What `import_path` names, with its `args`."""
    server: Any = Server  # the decorator's type does not tell what it adds
    application: serve.Application = server.bind(settings.get("options", []))
    return application


if __name__ == "__main__":
    sys.exit("Ray starts it: serve run deploy/ray-serve.yaml")
