"""Jobs that are kept: accepted once, taken up again, and gone when their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, settle

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import Conflict, EngineDied, Expired, NotFound, QueueFull
from multimodal_gen.runtime.serving.jobs import Jobs
from multimodal_gen.runtime.serving.owner import Owner
from multimodal_gen.runtime.serving.service import Service

ANNE, BOB, ADMIN = Owner("anne"), Owner("bob"), Owner("root", admin=True)


class Server:
    """Service and jobs over a fake engine and a folder that may have been used before."""

    def __init__(self, folder: Path, **args: Any) -> None:
        self.engine = FakeEngine()
        given = ServerArgs(**args)
        self.service = Service(given)
        self.jobs = Jobs.in_folder(folder, self.service, given)

    async def up(self) -> None:
        self.service.engine_up(self.engine)  # type: ignore[arg-type]
        await self.jobs.resume()
        await settle()

    async def submit(self, prompt: str, owner: Owner = ANNE, **more: Any) -> Any:
        params = SamplingParams(prompt=prompt)
        return await self.jobs.submit("image", params, owner=owner, **more)

    async def stop(self) -> None:
        await self.service.drain(0)
        self.service.stop()
        await self.jobs.close()


def run(folder: Path, test: Callable[[Server], Awaitable[None]], **args: Any) -> None:
    async def whole() -> None:
        server = Server(folder, **args)
        await server.up()
        await test(server)
        await server.stop()

    asyncio.run(whole())


def test_a_job_is_known_from_acceptance_to_its_file(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        record = await server.submit("a heart", meta={"size": "auto"})
        assert (record.status, record.owner, record.meta) == ("queued", "anne", {"size": "auto"})
        server.engine.step("a heart", 10)
        await settle()
        now = await server.jobs.get(record.id, ANNE)
        assert (now.status, now.progress) == ("in_progress", 49)
        server.engine.finish("a heart")
        done = await server.jobs.finished(record.id, ANNE)
        assert (done.status, done.progress) == ("completed", 100)
        assert done.expires_at == pytest.approx(done.completed_at + 86400)
        assert server.jobs.results.path(done.files[0]).read_bytes().startswith(b"\x89PNG")

    run(tmp_path, test)
