"""Jobs over a fake engine and a folder, which successive servers may use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from fake_engine import FakeEngine, settle
from http_serving import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.serving.dispatch.dispatcher import QueueLimits
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.service import Service

ANNE, BOB, ADMIN = Owner("anne"), Owner("bob"), Owner("root", admin=True)
MODEL_WITH_PICTURES = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-image", "image-to-image", "video-to-video"),
    limits=msgspec.structs.replace(MODEL.limits, max_images=3),
    parameters=("video_path",),
)


def _noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


PICTURE = {"image": _noise(32, 48, 3)}
INPUTS = {
    **PICTURE,
    "image_2": _noise(50, 20, 3),
    "image_3": _noise(16, 90, 3),
    "video": _noise(1, 24, 40, 3),
}


def same(sent: Sequence[np.ndarray[Any, Any]], given: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    """Whether these arrays were sent for these inputs."""
    return all(map(np.array_equal, sent, given.values())) and len(sent) == len(given)


class JobService:
    """Service and jobs over a fake engine and a folder that may have been used before."""

    def __init__(
        self,
        folder: Path,
        *,
        in_flight: int = 64,
        capacity: int = 256,
        args: ServerArgs | None = None,
    ) -> None:
        """With a ledger in `args`, the folder is not used."""
        args = args or ServerArgs()
        self.engine = FakeEngine()
        self.engine.model = MODEL_WITH_PICTURES
        limits = QueueLimits(capacity=capacity, in_flight=in_flight)
        self.service = Service(args, limits)
        if args.ledger is None:
            self.jobs = Jobs.in_folder(folder, self.service, args)
        else:
            self.jobs = Jobs.shared(self.service, args)

    async def up(self) -> None:
        next(self.service.fleet.engines).engine_up(self.engine)  # type: ignore[arg-type]
        await self.jobs.resume()
        await settle()

    async def submit(self, prompt: str, owner: Owner = ANNE, **more: Any) -> Any:
        params = SamplingParams(prompt=prompt)
        return await self.jobs.submit("image", params, owner=owner, **more)

    async def stop(self) -> None:
        await self.service.drain(0)
        self.service.stop()
        await self.jobs.close()


async def in_ledger(server: JobService, job_id: str) -> JobRecord:
    """A job as it is on disk."""
    return await asyncio.to_thread(server.jobs._ledger.get, job_id, None)


def run_jobs(folder: Path, test: Callable[[JobService], Awaitable[None]], **limits: int) -> None:
    async def whole() -> None:
        server = JobService(folder, **limits)
        await server.up()
        await test(server)
        await server.stop()

    asyncio.run(whole())
