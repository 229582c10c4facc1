"""Several models behind one port: each protocol reaches the one that is named."""

from __future__ import annotations

import base64
import io
from typing import Any

import msgspec
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, MODEL, VIDEO_MODEL, app_of, ask
from PIL import Image

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import EngineDied, InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.service import Service

CHANGES = msgspec.structs.replace(MODEL, tasks=("text-to-image", "image-to-image"))
SMALL = msgspec.structs.replace(
    CHANGES,
    schedulers=("ddim",),
    defaults=msgspec.structs.replace(MODEL.defaults, width=48, height=48),
)
HEART = {"prompt": "a heart"}
NODES: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "first"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a heart"}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 48, "height": 48, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": 1,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "a"}},
}


class Refusing(FakeEngine):
    """Ends each request with the name that the engine has for the test."""

    def __init__(self, info: ModelInfo, said: str) -> None:
        super().__init__(info)
        self.said = said
        self.reached = 0

    def submit(self, req: Any, pictures: Any = ()) -> Any:
        self.reached += 1
        raise InvalidRequest("seed", 0, f"reached {self.said}")


class TwoModels:
    def __init__(self, **given: Any) -> None:
        args = ServerArgs(model=("first=x", "second=y"), **given)
        self.service = Service(args)
        self.engines: dict[str, Refusing] = {}
        for model, info in zip(self.service.fleet.models, (CHANGES, SMALL), strict=True):
            self.engines[model.name] = engine = Refusing(info, model.name)
            model.engines[0].engine_up(engine)  # type: ignore[arg-type]
        self.app = app_of(self.service, args)


@pytest.fixture
def app() -> FastAPI:
    return TwoModels().app


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 48)).save(file, "png")
    return file.getvalue()


def encoded() -> str:
    return base64.b64encode(picture()).decode()


def named(way: str, model: str | None) -> tuple[str, dict[str, Any]]:
    """A request for an image in one of the protocols, with a model's name or without."""
    by_field = HEART if model is None else {**HEART, "model": model}
    settings = {} if model is None else {"override_settings": {"sd_model_checkpoint": model}}
    path = "/hf" if model is None else f"/models/{model}"
    link = {"image_url": f"data:image/png;base64,{encoded()}"}
    return {
        "generations": (IMAGES, {"json": by_field}),
        "edits": ("/v1/images/edits", {"json": {**by_field, "image": link}}),
        "variations": ("/v1/images/variations", {"json": {**by_field, "image": link}}),
        "hugging face": (path, {"json": {"inputs": "a heart"}}),
        "txt2img": ("/sdapi/v1/txt2img", {"json": {**HEART, **settings}}),
        "img2img": (
            "/sdapi/v1/img2img",
            {"json": {**HEART, **settings, "init_images": [encoded()]}},
        ),
    }[way]


WAYS = ("generations", "edits", "variations", "hugging face", "txt2img", "img2img")


@pytest.mark.parametrize("way", WAYS)
def test_each_protocol_reaches_the_model_that_is_named(way: str, app: FastAPI) -> None:
    for model, reached in (("second", "second"), ("first", "first"), (None, "first")):
        path, body = named(way, model)
        assert f"reached {reached}" in ask(app, "POST", path, **body).text


@pytest.mark.parametrize("way", WAYS)
def test_each_protocol_refuses_an_unknown_model_with_the_names(way: str, app: FastAPI) -> None:
    path, body = named(way, "dall-e-3")
    answer = ask(app, "POST", path, **body)
    assert answer.status_code == 404
    assert "model 'dall-e-3' is not served; available: 'first', 'second'" in answer.text


def test_a_job_is_for_the_model_that_is_named(app: FastAPI) -> None:
    body = {**HEART, "run_in_background": True}
    for model in ("second", "first"):
        answer = ask(app, "POST", IMAGES, json={**body, "model": model}).json()
        assert answer["model"] == model


def test_requests_are_checked_against_the_model_that_is_named(app: FastAPI) -> None:
    body = {**HEART, "scheduler": "ddim"}
    assert "reached second" in ask(app, "POST", IMAGES, json={**body, "model": "second"}).text
    refused = ask(app, "POST", IMAGES, json={**body, "model": "first"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "scheduler")


def test_videos_reach_the_model_that_is_named() -> None:
    args = ServerArgs(model=("pictures=x", "videos=y"))
    service = Service(args)
    for model, info in zip(service.fleet.models, (MODEL, VIDEO_MODEL), strict=True):
        model.engines[0].engine_up(Refusing(info, model.name))  # type: ignore[arg-type]
    app = app_of(service, args)
    sync = ask(app, "POST", "/v1/videos/sync", json={**HEART, "model": "videos"})
    assert "reached videos" in sync.text
    assert ask(app, "POST", "/v1/videos", json={**HEART, "model": "videos"}).json()["model"] == (
        "videos"
    )
    refused = ask(app, "POST", "/v1/videos", json=HEART)
    assert "model='pictures': makes images; this route makes videos" in refused.text
    refused = ask(app, "POST", IMAGES, json={**HEART, "model": "videos"})
    assert "model='videos': makes videos" in refused.text


def test_a_server_of_one_model_takes_any_name() -> None:
    args = ServerArgs()
    service = Service(args)
    next(service.fleet.engines).engine_up(Refusing(MODEL, "it"))  # type: ignore[arg-type]
    app = app_of(service, args)
    answer = ask(app, "POST", IMAGES, json={**HEART, "model": "gpt-image-1"})
    assert "reached it" in answer.text


def test_a1111s_option_switches_the_model_of_that_key() -> None:
    keys = {"api_key": "secret", "admin_key": "admin"}
    app = TwoModels(**keys).app
    mine, others = ({"authorization": f"Bearer {key}"} for key in keys.values())
    titles = ask(app, "GET", "/sdapi/v1/sd-models", headers=mine).json()
    assert [each["title"] for each in titles] == ["first", "second"]
    options = {"sd_model_checkpoint": "Second [0123abcd]"}
    assert ask(app, "POST", "/sdapi/v1/options", json=options, headers=mine).status_code == 200
    for headers, model in ((mine, "second"), (others, "first")):
        found = ask(app, "GET", "/sdapi/v1/options", headers=headers).json()
        assert found["sd_model_checkpoint"] == model
        answer = ask(app, "POST", "/sdapi/v1/txt2img", json=HEART, headers=headers)
        assert f"reached {model}" in answer.text
    samplers = ask(app, "GET", "/sdapi/v1/samplers", headers=mine).json()
    assert [each["name"] for each in samplers] == ["DDIM"]
    options = {"sd_model_checkpoint": "third"}
    refused = ask(app, "POST", "/sdapi/v1/options", json=options, headers=mine)
    assert refused.status_code == 400
    assert "must be 'first', 'second'" in refused.text


def graph(**names: str) -> dict[str, Any]:
    """A graph whose checkpoint, and perhaps a second one, are named."""
    loaders = {
        number: {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}
        for number, name in zip(("1", "9"), names.values(), strict=False)
    }
    return {"prompt": {**NODES, **loaders}}


def test_comfyuis_loader_names_the_model() -> None:
    for name in ("second", "first"):
        two = TwoModels()
        answer = ask(two.app, "POST", "/prompt", json=graph(a=name))
        assert answer.status_code == 200, answer.text
        reached = [each for each, engine in two.engines.items() if engine.reached]
        assert reached == [name]


def test_comfyui_lists_all_models_and_refuses_others(app: FastAPI) -> None:
    nodes = ask(app, "GET", "/object_info/CheckpointLoaderSimple").json()
    choices = nodes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert choices == ask(app, "GET", "/models/checkpoints").json() == ["first", "second"]
    refused = ask(app, "POST", "/prompt", json=graph(a="sd15.safetensors"))
    assert refused.status_code == 400
    assert "'sd15.safetensors' is not served; available: 'first', 'second'" in refused.text
    refused = ask(app, "POST", "/prompt", json=graph(a="first", b="second"))
    assert "a graph has one model" in refused.text


def test_the_playground_hears_of_each_model(app: FastAPI) -> None:
    first = ask(app, "GET", "/model_info").json()
    second = ask(app, "GET", "/model_info?model=second").json()
    assert (first["name"], second["name"]) == ("first", "second")
    assert (first["defaults"]["width"], second["defaults"]["width"]) == (96, 48)
    assert first["models"] == second["models"] == ["first", "second"]
    assert ask(app, "GET", "/model_info?model=third").status_code == 404


def test_all_models_are_listed_with_their_state(app: FastAPI) -> None:
    listed = ask(app, "GET", "/v1/models").json()["data"]
    assert [(each["id"], each["status"]) for each in listed] == [
        ("first", "ready"),
        ("second", "ready"),
    ]
    assert ask(app, "GET", "/v1/models/second").json() == listed[1]
    assert ask(app, "GET", "/v1/models/third").status_code == 404


def test_health_is_that_of_the_default_model_and_tells_of_every_engine() -> None:
    two = TwoModels()
    first, second = two.service.fleet.engines
    second.engine_lost(EngineDied("killed"))
    health = ask(two.app, "GET", "/health")
    assert (health.status_code, health.json()["model"]) == (200, "first")
    assert [each["status"] for each in health.json()["engines"]] == ["ready", "restarting"]
    first.engine_lost(EngineDied("killed"))
    assert ask(two.app, "GET", "/health").status_code == 503


@pytest.mark.parametrize("change", ["load", "unload", "reload"])
def test_only_the_operator_changes_what_is_loaded(change: str) -> None:
    app = TwoModels(api_key="secret", admin_key="admin").app
    path = f"/v1/models/second/{change}"
    for key, status in (("secret", 403), ("wrong", 401)):
        headers = {"authorization": f"Bearer {key}"}
        assert ask(app, "POST", path, headers=headers).status_code == status
    headers = {"authorization": "Bearer admin"}
    assert ask(app, "POST", path, headers=headers).status_code in (200, 202)
    assert ask(app, "POST", f"/v1/models/x/{change}", headers=headers).status_code == 404
