"""HTTP requests to a server, whose errors are raised as this program's own."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2

from multimodal_gen.configs.redacted_url import redacted
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidRequest, MultimodalGenError, QueueFull, from_wire

KEY_VARIABLE = "MULTIMODAL_GEN_API_KEY"
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_FAILED = 300
_UNAUTHORIZED = 401
_DATA = "data:"


class ServerConnection:
    """A server's address and key. Used inside `async with`, except for `read`."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = redacted(url)
        """As it may be shown."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": headers,
            "timeout": _TIMEOUT,
            "follow_redirects": True,
        }
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> ServerConnection:
        self._client = httpx2.AsyncClient(**self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def read(self, path: str, **query: str) -> dict[str, Any]:
        """Return the JSON object at a path, while no event loop runs. Raises
        MultimodalGenError."""
        with self._translating(), httpx2.Client(**self._options) as client:
            return self._read(client.get(path, params=query))

    async def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path. Raises MultimodalGenError."""
        with self._translating():
            return self._read(await self._open.get(path))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object and return the reply's. Raises MultimodalGenError."""
        with self._translating():
            return self._read(await self._open.post(path, json=body))

    async def delete(self, path: str) -> None:
        """Delete what is at a path. Raises MultimodalGenError."""
        with self._translating():
            self._checked(await self._open.delete(path))

    async def download(self, link: str) -> bytes:
        """Return a file by the link that the server gave, of which the path counts: the server may
        know itself by another address. Raises MultimodalGenError."""
        parts = urlsplit(link)
        query = f"?{parts.query}" if parts.query else ""
        with self._translating():
            return self._checked(await self._open.get(parts.path + query)).content

    async def events(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the server-sent events at a path, as the objects that they hold. Raises
        MultimodalGenError."""
        with self._translating():
            async with self._open.stream("GET", path, timeout=None) as reply:
                if reply.status_code >= _FAILED:
                    await reply.aread()
                self._checked(reply)
                async for line in reply.aiter_lines():
                    if line.startswith(_DATA):
                        yield json.loads(line.removeprefix(_DATA))

    @property
    def _open(self) -> httpx2.AsyncClient:
        assert self._client is not None
        return self._client

    def _read(self, reply: httpx2.Response) -> dict[str, Any]:
        try:
            content = self._checked(reply).json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise MultimodalGenError(f"{self.url} is not a multimodal_gen server")
        return content

    def _checked(self, reply: httpx2.Response) -> httpx2.Response:
        if reply.status_code < _FAILED:
            return reply
        if reply.status_code == _UNAUTHORIZED:
            hint = f"set {KEY_VARIABLE}, or --server-key-file"
            raise InvalidRequest("server", self.url, f"needs a valid API key: {hint}")
        raise _error_in(reply, self.url)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException as error:
            raise MultimodalGenError(f"{self.url} does not answer in time") from error
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise _no_url(self.url) from error
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            said = f"no server answers at {self.url} ({reason}); `multimodal-gen serve` starts one"
            raise MultimodalGenError(said) from error


def _error_in(reply: httpx2.Response, url: str) -> MultimodalGenError:
    try:
        told = reply.json()["error"]
        error = from_wire(str(told["code"]), str(told["message"]), told.get("param"), None)
    except (ValueError, LookupError, TypeError, AttributeError):
        what = f"{url} is not a multimodal_gen server (status {reply.status_code})"
        return MultimodalGenError(what)
    if isinstance(error, QueueFull):
        error.retry_after_s = float(reply.headers.get("retry-after", 1))
    return error


def server_url(given: str) -> str:
    """The address of a server, as http://host:port. Raises InvalidRequest."""
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise _no_url(given)
    return parts.geturl()


def _no_url(given: str) -> InvalidRequest:
    return InvalidRequest("server", redacted(given), "must be a URL such as http://127.0.0.1:30000")


def api_key(file: str | None) -> str | None:
    """The key in a file, or in the environment. Raises InvalidRequest."""
    if file is None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if key and not _is_key(key):
            raise InvalidRequest(KEY_VARIABLE, "…", "must hold one key, of ASCII characters")
        return key or None
    try:
        key = user_path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidRequest("server_key_file", file, f"can't be read: {reason}") from error
    if not _is_key(key):
        raise InvalidRequest("server_key_file", file, "must hold one key")
    return key


def _is_key(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text.split()) == 1
