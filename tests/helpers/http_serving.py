"""The HTTP app in the test's own process: asked directly, or behind a real port."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import uvicorn
from fastapi import FastAPI

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.transport.connections import WEBSOCKETS
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage.data_folder import DataFolder

IMAGES = "/v1/images/generations"
MODEL = ModelInfo(
    name="owner/name",
    family="flux",
    tasks=("text-to-image",),
    defaults=Defaults(width=96, height=96, num_inference_steps=20),
    limits=Limits(),
    size_multiple=16,
    schedulers=("flow_euler",),
)
VIDEO_MODEL = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-video", "image-to-video"),
    defaults=Defaults(width=96, height=64, num_inference_steps=2, num_frames=5, fps=8),
    limits=Limits(max_frames=81),
    parameters=("num_frames", "fps"),
    frame_multiple=4,
)


def app_without_engine(api_key: str | None = None, **given: Any) -> FastAPI:
    """An app whose model is still loading."""
    args = ServerArgs(api_key=api_key, **given)
    return app_of(Service(args), args)


def app_over(client: SchedulerClient, **given: Any) -> FastAPI:
    """An app over an engine that is ready."""
    args = ServerArgs(**given)
    return app_of(Service.over(client, args), args)


def app_of(service: Service, args: ServerArgs) -> FastAPI:
    parent = os.environ["XDG_CACHE_HOME"]  # conftest's
    folder = DataFolder(Path(tempfile.mkdtemp(prefix="app-", dir=parent)), temporary=True)
    atexit.register(folder.close)
    return create_app(service, Jobs.in_folder(folder.path, service, args), args)


def app_with(
    *,
    model: ModelInfo = MODEL,
    ends: MultimodalGenError,
    dead: MultimodalGenError | None = None,
    submit: Callable[..., None] | None = None,
    **given: Any,
) -> FastAPI:
    """An app whose engine refuses every request with `ends`, unless `submit` takes it, and is
    `dead` if that is given."""

    def refuse(*_: object) -> None:
        raise ends

    costs = EvaluationCosts()
    client = SimpleNamespace(
        model=model, died=dead, num_ranks=1, submit=submit or refuse, costs=costs
    )
    return app_over(client, **given)  # type: ignore[arg-type]


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx2.Response:
    """One request, without a socket."""

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


@contextlib.contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """The URL of `app` behind a real port; `options` are uvicorn's."""
    listener = listen(ServerArgs(port=0))
    given = {"log_config": None, "log_level": "warning", "lifespan": "off", **WEBSOCKETS}
    config = uvicorn.Config(app, **{**given, **options})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield listener_url(listener)
    server.should_exit = True
    thread.join(10)


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
