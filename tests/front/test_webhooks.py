"""An address that the operator names is told that jobs have ended."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import openai
import pytest
from fake_engine import FakeEngine, settle
from webhook_receiver import SECRET, Receiver

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import GenerationFailed, InvalidRequest
from multimodal_gen.serving import webhooks
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service

ANNE = Owner("anne")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


class Server:
    """Jobs over a fake engine, and the webhooks of `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        args = ServerArgs(webhook_url=url, webhook_secret=SECRET)
        self.folder = folder
        self.engine = FakeEngine()
        self.service = Service(args)
        self.jobs = Jobs.in_folder(folder, self.service, args)
        self.telling: asyncio.Task[None] | None = None

    async def up(self) -> None:
        next(self.service.fleet.engines).engine_up(self.engine)  # type: ignore[arg-type]
        await self.jobs.resume()
        await settle()

    def tell(self) -> None:
        assert self.jobs.webhooks is not None
        self.telling = asyncio.get_running_loop().create_task(self.jobs.webhooks.run())

    async def submit(self, prompt: str) -> str:
        params = SamplingParams(prompt=prompt)
        return (await self.jobs.submit("image", params, owner=ANNE)).id

    async def notices(self) -> Sequence[int]:
        """Failed attempts of each notice that is stored."""
        asked = "SELECT tries FROM notices ORDER BY due_at"
        return await asyncio.to_thread(self._read, asked)

    def _read(self, asked: str) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.folder / "jobs.sqlite")) as ledger:
            return [tries for (tries,) in ledger.execute(asked)]

    async def untold(self) -> int:
        return len(await self.notices())

    async def all_told(self) -> None:
        end = time.monotonic() + 30
        while await self.untold():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self.telling is not None:
            self.telling.cancel()
            await asyncio.wait([self.telling])
        await self.service.drain(0)
        self.service.stop()
        await self.jobs.close()


async def finish_one(folder: Path, receiver: Receiver, *, posts: int) -> str:
    """The id of a job that ended, of which was told in so many posts at least."""
    server = Server(folder, receiver.url)
    await server.up()
    server.tell()
    job = await server.submit("a heart")
    server.engine.finish("a heart")
    await receiver.heard(posts)
    await server.all_told()
    await server.stop()
    return job


def test_the_openai_package_accepts_what_is_posted(tmp_path: Path, receiver: Receiver) -> None:
    job = asyncio.run(finish_one(tmp_path, receiver, posts=1))
    headers, body = receiver.posted[0]
    with openai.OpenAI(api_key="none", webhook_secret=SECRET) as client:
        event = client.webhooks.unwrap(body, headers)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body.replace("completed", "failed"), headers)
    assert (event.type, event.data.id, event.object) == ("image.completed", job, "event")
    assert event.id == headers["webhook-id"]


def test_failures_are_told_and_cancelled_jobs_are_not(tmp_path: Path, receiver: Receiver) -> None:
    async def test() -> list[str]:
        server = Server(tmp_path, receiver.url)
        await server.up()
        jobs = [await server.submit(prompt) for prompt in ("a", "b")]
        await server.jobs.cancel(jobs[1], ANNE)
        server.engine.fail("a", GenerationFailed("it went wrong"))
        await server.jobs.finished(jobs[0], ANNE)
        server.tell()
        await receiver.heard(1)
        await server.all_told()
        await server.stop()
        return jobs

    jobs = asyncio.run(test())
    assert [(e["type"], e["data"]["id"]) for e in receiver.events] == [("image.failed", jobs[0])]


def test_what_was_not_taken_is_told_again_under_the_same_id(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_DELAYS_S", (0.0,))
    monkeypatch.setattr(webhooks, "_LOOK_S", 0.05)
    receiver.statuses = [500, 302, 200]
    asyncio.run(finish_one(tmp_path, receiver, posts=3))
    assert len({event["id"] for event in receiver.events}) == 1
    assert len(receiver.posted) == 3


@pytest.mark.parametrize("statuses", [[410], [500]])
def test_who_is_gone_or_silent_for_a_day_is_left_alone(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    monkeypatch.setattr(webhooks, "_DELAYS_S", (90000.0,))
    receiver.statuses = statuses
    asyncio.run(finish_one(tmp_path, receiver, posts=1))
    assert len(receiver.posted) == 1


def test_what_one_server_did_not_tell_the_next_one_does(tmp_path: Path, receiver: Receiver) -> None:
    async def test() -> None:
        first = Server(tmp_path, receiver.url)
        await first.up()
        job = await first.submit("a")
        first.engine.finish("a")
        await first.jobs.finished(job, ANNE)
        assert await first.untold() == 1
        await first.stop()
        second = Server(tmp_path, receiver.url)
        await second.up()
        second.tell()
        await receiver.heard(1)
        await second.all_told()
        await second.stop()

    asyncio.run(test())
    assert [event["type"] for event in receiver.events] == ["image.completed"]


class Dripping:
    """Sends one byte of a header after another, to whom connects first; 204 to all others."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()
        self.taken: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(await reader.readuntil(b"}}"))
        first = len(self.taken) == 1
        writer.write(b"HTTP/1.1 204 No Content\r\n" + (b"x-slow: " if first else b"\r\n"))
        with contextlib.suppress(ConnectionError):
            while first and not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
        if first:
            self.given_up.set()


def test_a_receiver_that_drips_is_given_up_and_keeps_no_other_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_DELAYS_S", (0.0,))

    async def test() -> None:
        dripping = Dripping()
        listening = await asyncio.start_server(dripping.answer, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        server = Server(tmp_path, f"http://127.0.0.1:{port}/hook")
        await server.up()
        server.tell()
        for count, prompt in enumerate(("slow", "quick"), start=1):
            await server.submit(prompt)
            server.engine.finish(prompt)
            while len(dripping.taken) < count:
                await asyncio.sleep(0.01)
        while await server.untold() > 1:  # The quick one is told while the slow one drips.
            await asyncio.sleep(0.01)
        assert not dripping.given_up.is_set()
        await server.stop()
        await dripping.given_up.wait()
        listening.close()

    asyncio.run(test())


def test_a_delivery_has_a_time_limit_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_DELAYS_S", (0.0,))
    monkeypatch.setattr(webhooks, "_TIMEOUT_S", 0.3)

    async def test() -> None:
        dripping = Dripping()
        listening = await asyncio.start_server(dripping.answer, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        server = Server(tmp_path, f"http://127.0.0.1:{port}/hook")
        await server.up()
        server.tell()
        await server.submit("a")
        server.engine.finish("a")
        await asyncio.wait_for(dripping.given_up.wait(), 30)
        await server.all_told()
        await server.stop()
        assert len(dripping.taken) == 2
        listening.close()

    asyncio.run(test())


@pytest.mark.parametrize("step", [86400.0, -86400.0])
def test_a_step_of_the_systems_clock_neither_ends_nor_delays_notices(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    monkeypatch.setattr(webhooks, "_DELAYS_S", (0.0,))
    receiver.statuses = [500, 200]
    now = time.time

    async def test() -> None:
        server = Server(tmp_path, receiver.url)
        await server.up()
        job = await server.submit("a")
        server.engine.finish("a")
        await server.jobs.finished(job, ANNE)
        monkeypatch.setattr(time, "time", lambda: now() + step)
        server.tell()
        await receiver.heard(2)
        await server.all_told()
        await server.stop()

    asyncio.run(test())


def test_an_address_that_can_not_be_reached_keeps_its_notices(tmp_path: Path) -> None:
    async def test() -> None:
        server = Server(tmp_path, "http://127.0.0.1:9/hook")
        await server.up()
        server.tell()
        job = await server.submit("a")
        server.engine.finish("a")
        assert (await server.jobs.finished(job, ANNE)).status == "completed"
        while not (await server.notices())[0]:
            await asyncio.sleep(0.02)
        assert await server.untold() == 1
        await server.stop()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"webhook_url": "ftp://host/"}, "webhook_url"),
        ({"webhook_url": "https://host/hook"}, "webhook_secret"),
    ],
)
def test_what_can_not_be_posted_to_is_refused(given: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        ServerArgs(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://", "https://host:port/", "http://[::1/"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    args = ServerArgs(webhook_url=url, webhook_secret=SECRET)
    with pytest.raises(InvalidRequest, match="webhook_url"):
        Jobs.in_folder(tmp_path, Service(args), args)


@pytest.mark.parametrize("secret", ["short", "whsec_", "whsec_no base64!"])
def test_a_secret_that_is_none_is_refused_and_not_repeated(tmp_path: Path, secret: str) -> None:
    args = ServerArgs(webhook_url="https://host/hook", webhook_secret=secret)
    with pytest.raises(InvalidRequest, match="webhook_secret") as caught:
        Jobs.in_folder(tmp_path, Service(args), args)
    assert secret not in str(caught.value).replace("whsec_ followed", "")
