"""The playground's server with an engine that does what the test says, to be stopped and begun
again on the same port, over the same folder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
from fake_engine import FakeEngine
from http_serving import MODEL, eventually

from multimodal_gen.client.request_handle import Output, Update
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.transport.listen import listen
from multimodal_gen.errors import NotFound
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service

PICTURES = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("lora", "control", "max_sequence_length"),
    schedulers=("flow_euler", "unipc"),
    noise_schedules=("normal", "beta", "simple"),
)
VIDEOS = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-video",),
    parameters=("num_frames", "fps"),
    frame_multiple=4,
    defaults=msgspec.structs.replace(MODEL.defaults, num_frames=9, fps=8),
    limits=msgspec.structs.replace(MODEL.limits, max_frames=81),
)
SEVERAL = msgspec.structs.replace(
    PICTURES,
    tasks=("text-to-image", "image-edit"),
    limits=msgspec.structs.replace(MODEL.limits, max_images=3),
)
FRAMES = msgspec.structs.replace(
    VIDEOS,
    tasks=("text-to-video", "image-to-video", "video-to-video"),
    parameters=(*VIDEOS.parameters, "last_image_path", "video_path", "mask_path"),
    defaults=msgspec.structs.replace(VIDEOS.defaults, strength=0.8),
)
WIDTH, HEIGHT = 96, 96


class Server:
    """`url` is the same after `stop` and `start`."""

    def __init__(self, folder: Path, model: ModelInfo = PICTURES, **args: Any) -> None:
        self._folder = folder
        self._model = model
        self._args = args
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.engine = FakeEngine()
        self.engine.model = self._model
        args = ServerArgs(**self._args, port=self._port)
        listener = listen(args)
        self._port = listener.getsockname()[1]
        self.service = Service(args)
        next(self.service.fleet.engines).engine_up(self.engine)  # type: ignore[arg-type]
        self.jobs = Jobs.in_folder(self._folder, self.service, args)
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            create_app(self.service, self.jobs, args),
            log_config=None,
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=5,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()

    def _run(self, listener: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: Any) -> None:
        await self.jobs.resume()
        await self._uvicorn.serve([listener])
        self.service.stop()
        await self.jobs.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.service.stop)
        self._uvicorn.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def clear(self) -> None:
        """Forget all jobs."""
        asyncio.run_coroutine_threadsafe(self._clear(), self._loop).result(60)

    async def _clear(self) -> None:
        everybody = Owner(admin=True)
        for record in (await self.jobs.page(everybody, limit=1000)).records:
            with contextlib.suppress(NotFound):  # The page may be at it as well.
                await self.jobs.delete(record.id, everybody)

    # -- what the engine does

    def has(self, prompt: str, count: int = 1) -> bool:
        """Whether the engine gets so many requests of that prompt."""
        return eventually(lambda: self.engine.prompts.count(prompt) == count)

    def preview(self, prompt: str, step: int, gray: int) -> None:
        """It is so far, and looks like that."""
        request_id, total = self.engine._named(prompt)
        pixels = np.full((24, 24, 3), gray, np.uint8)
        update = Update(request_id, step, total, 0, 2.0, pixels)
        self.engine._handles[request_id]._deliver(update)

    def share(self, prompt: str, step: int, batch_size: int) -> None:
        """It is so far, and shares its steps with so many; 0 while it is interrupted."""
        request_id, total = self.engine._named(prompt)
        update = Update(
            request_id, step, total, 0, 2.0, None, phase="denoise", batch_size=batch_size
        )
        self.engine._handles[request_id]._deliver(update)

    def finish(self, prompt: str, frames: int = 1) -> None:
        """It is made: every output has a colour of its own."""
        while prompt in self.engine.prompts:
            request_id, _ = self.engine._named(prompt)
            params = self.engine.alive[request_id].params
            pixels = np.full((frames, HEIGHT, WIDTH, 3), (params.seed or 0) % 256, np.uint8)
            fps = params.fps if frames > 1 else None
            output = Output(request_id, pixels, params.seed or 0, fps, {}, [])
            if (sound := self.engine.sound) is not None:
                output = replace(output, audio=sound.samples, audio_rate=sound.rate)
            self.engine._end(request_id, output)
