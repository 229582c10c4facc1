"""`generate --server`: a running server in the place of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from http_serving import MODEL, VIDEO_MODEL, app_over, eventually, serving
from PIL import Image, ImageChops

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.cli.running.result_source import CheckedRequest
from multimodal_gen.entrypoints.cli.server.connection import KEY_VARIABLE, ServerConnection
from multimodal_gen.entrypoints.cli.server.server_engine import ServerEngine
from multimodal_gen.entrypoints.python import diffusion_generator
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.metadata import read_parameters

SMALL = ["--steps=2", "-s=3"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    Image.new("RGB", (96, 96), "red").save("photo.png")
    mask = Image.new("L", (96, 96))
    mask.paste(255, (0, 0, 48, 96))
    mask.save("mask.png")


class Together(FakeEngine):
    """Ends requests once there are as many as it waits for; 0: never."""

    def __init__(self, model: ModelInfo = MODEL, waits_for: int = 1) -> None:
        super().__init__(model)
        self._waits_for = waits_for

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        if len(self.alive) == self._waits_for:
            for prompt in self.prompts:
                self.finish(prompt)
        return handle


def said(capsys: pytest.CaptureFixture[str], status: int, *argv: str) -> str:
    """The one line on stderr of a command that ends with this status."""
    assert main(["generate", "a dog", *SMALL, *argv]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--image-path=photo.png", "--strength=0.8"],
        ["--image-path=photo.png", "--mask-path=mask.png"],
    ],
    ids=["text", "image", "mask"],
)
def test_a_server_makes_the_same_files(
    argv: list[str], url: str, engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", "a dog", "-n2", *SMALL, *argv]
    monkeypatch.setattr(diffusion_generator, "start_engine", lambda *_: nullcontext(engine))
    assert main([*command, "-o", "own/{seed}.png"]) == 0
    assert main([*command, "-o", "its/{seed}.png", "--server", url]) == 0
    for seed in (3, 4):
        own, its = f"own/{seed}.png", f"its/{seed}.png"
        assert read_parameters(its) == read_parameters(own)
        with Image.open(own) as first, Image.open(its) as second:
            worst = ImageChops.difference(first, second).getextrema()
        assert all(high <= 1 for _, high in worst)


def test_a_request_that_the_model_refuses_is_refused_here(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, 2, "-W", "70", "--server", url)
    assert "-W/--width=70: must be a multiple of 16" in line


def test_a_model_that_the_server_lacks_is_refused(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, 2, "--model-path", "no/such", "--server", url)
    assert "no/such: the server has no such model; it has " in line.replace("'", "")


def test_prompts_are_sent_concurrently(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.txt").write_text("a\nb\nc")
    with serving(app_over(Together(waits_for=3))) as url:  # type: ignore[arg-type]
        assert (
            main(["generate", "--prompt-path=p.txt", "--server", url, "-o", "{prompt}.webp"]) == 0
        )
    assert sorted(capsys.readouterr().out.split()) == ["a.webp", "b.webp", "c.webp"]


def test_a_video_is_saved_as_the_server_encoded_it() -> None:
    with serving(app_over(Together(VIDEO_MODEL_AS))) as url:  # type: ignore[arg-type]
        assert main(["generate", "a dog", "-s5", "--server", url, "-o", "a.mp4"]) == 0
    recipe = read_parameters("a.mp4")
    assert (recipe.params.seed, recipe.params.num_frames) == (5, 5)


VIDEO_MODEL_AS = msgspec.structs.replace(VIDEO_MODEL, name="films")


@pytest.fixture
def locked() -> Iterator[str]:
    """A server that needs a key."""
    with serving(app_over(Together(), api_key="secret-1")) as url:  # type: ignore[arg-type]
        yield url


def test_a_server_gets_its_key_from_the_environment_or_a_file(
    locked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, 2, "--server", locked)
    assert f"needs a valid API key: set {KEY_VARIABLE}, or --server-key-file" in line
    Path("key").write_text("secret-1\n")
    named = ["--server", locked, "--server-key-file", "key"]
    assert main(["generate", "a dog", *SMALL, *named]) == 0
    monkeypatch.setenv(KEY_VARIABLE, "secret-1")
    assert main(["generate", "a dog", *SMALL, "--server", locked]) == 0


@pytest.mark.parametrize("key", ["\u043a\u043b\u044e\u0447", "secret-1\nsecret-2"])
def test_a_variable_that_holds_no_key_is_named_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    line = said(capsys, 2, "--server", "http://127.0.0.1:1")
    assert f"{KEY_VARIABLE}='…': must hold one key" in line
    assert key.split()[0] not in line


def test_the_password_in_a_url_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "swordfish" not in said(capsys, 1, "--server", "http://me:swordfish@127.0.0.1:1")


def test_a_server_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(app_over(Together())) as url:  # type: ignore[arg-type]
        pass
    line = said(capsys, 1, "--server", url)
    assert f"no server answers at {url}" in line
    assert "`multimodal-gen serve` starts one" in line


async def _other_program(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"<html>"})


def test_another_program_is_told_from_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(_other_program) as url:  # type: ignore[arg-type]
        assert f"{url} is not a multimodal_gen server" in said(capsys, 1, "--server", url)


def test_leaving_deletes_the_job() -> None:
    engine = Together(waits_for=0)
    with serving(app_over(engine)) as url:  # type: ignore[arg-type]
        source = ServerEngine(ServerConnection(url, None), None)
        source.wait_ready()
        params = SamplingParams(prompt="a dog", seed=1, num_inference_steps=2)
        request = CheckedRequest(params, params, {}, (), None)

        async def leave() -> None:
            async with source.running(), aclosing(source.stream(request)) as events:
                coming = asyncio.create_task(anext(events))
                while not engine.alive:
                    await asyncio.sleep(0)
                engine.step("a dog", 1)
                await coming

        asyncio.run(leave())
        jobs = httpx2.get(f"{url}/v1/jobs").json()["data"]
        assert eventually(lambda: not engine.alive)
    assert jobs == []
