"""ComfyUI's clients: graphs over HTTP, events over a WebSocket."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from comfyui_client import ComfyUI, comfyui, default_graph, header_of, long_graph, node, png_of
from http_serving import IMAGES, app_over, eventually, serving
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters


@pytest.fixture(autouse=True, scope="module")
def loaded(engine: EngineProcess) -> None:
    engine.wait_ready(90)


@pytest.fixture(scope="module")
def url(engine: EngineProcess) -> Iterator[str]:
    with serving(app_over(engine.client)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[ComfyUI]:
    with comfyui(url) as client:
        yield client


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Of two owners; alice has one request with the engine at a time."""
    path = tmp_path / "keys.yaml"
    path.write_text(
        "alice: {key: alice-key-0123456789, max_concurrent: 1}\nrobert: robert-key-0123456789\n"
    )
    path.chmod(0o600)
    return path


def ids_in(client: ComfyUI, queue: str) -> list[str]:
    return [entry[1] for entry in client.get("/queue").json()[queue]]


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def inpainting(client: ComfyUI, *encoder: str, **sampling: object) -> dict[str, object]:
    """A graph that paints the right half of a grey picture black but for a heart, after
    `encoder`'s kind."""
    rgba = np.full((96, 96, 4), 128, np.uint8)
    rgba[..., 3] = 255
    rgba[:, 48:, 3] = 0
    name = client.upload(png_of(rgba))["name"]
    graph = default_graph("a red heart on a black background", **sampling)
    graph["1"] = node("LoadImage", image=name)
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    if encoder == ("VAEEncodeForInpaint",):
        mask = {"mask": ["1", 1], "grow_mask_by": 0}
        graph["5"] = node("VAEEncodeForInpaint", pixels=["1", 0], vae=["4", 2], **mask)
    elif encoder:
        graph["2"] = node("SetLatentNoiseMask", samples=["5", 0], mask=["1", 1])
        graph["3"]["inputs"]["latent_image"] = ["2", 0]
    return graph


def test_default_workflow_is_submitted_followed_and_viewed(client: ComfyUI) -> None:
    entry, heard = client.make(default_graph(seed=1))
    executed = [data["node"] for data in heard.of("executing")]
    assert executed.index("4") < executed.index("6") < executed.index("3") < executed.index("8")
    assert executed[-2:] == ["9", None]
    assert heard.types.index("execution_start") < heard.types.index("progress")
    assert heard.types.index("executed") < heard.types.index("execution_success")
    assert heard.of("executed")[0]["output"] == entry["outputs"]["9"]
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    assert pixels_of(client.picture(entry)).shape == (96, 96, 3)


def test_progress_counts_the_samplers_steps(client: ComfyUI) -> None:
    _, heard = client.make(default_graph(steps=6))
    progress = heard.of("progress")
    values = [data["value"] for data in progress]
    assert values == sorted(values)
    assert values[-1] == 6
    assert {(data["max"], data["node"]) for data in progress} == {(6, "3")}


def test_graph_makes_what_its_parameters_make_elsewhere(client: ComfyUI) -> None:
    entry, _ = client.make(default_graph(seed=11))
    body = {
        "prompt": "a red heart",
        "negative_prompt": "text, watermark",
        "size": "96x96",
        "seed": 11,
        "num_inference_steps": 4,
        "true_cfg_scale": 1.0,
        "response_format": "file",
    }
    file = client.post(IMAGES, json=body).content
    assert np.array_equal(pixels_of(client.picture(entry)), pixels_of(file))


def test_previews_are_jpegs_after_two_numbers(client: ComfyUI) -> None:
    for message in client.previews():
        assert header_of(message) == (1, 1)
        assert message[8:].startswith(b"\xff\xd8")
        assert pixels_of(message[8:]).ndim == 3


def test_client_that_knows_metadata_gets_previews_with_it(client: ComfyUI) -> None:
    flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    client.socket.send(json.dumps(flags))
    answer = json.loads(client.socket.recv(timeout=30))
    assert answer["type"] == "feature_flags"
    assert answer["data"] == client.get("/features").json()
    message, *_ = client.previews()
    kind, length = header_of(message)
    metadata = json.loads(message[8 : 8 + length])
    assert kind == 4
    assert (metadata["node_id"], metadata["image_type"]) == ("3", "image/jpeg")
    assert message[8 + length :].startswith(b"\xff\xd8")


@pytest.mark.parametrize("extra", [{}, {"preview_method": "none"}, {"preview_method": "default"}])
def test_no_previews_are_sent_unasked(client: ComfyUI, extra: dict[str, str]) -> None:
    graph = default_graph(steps=20, seed=100 + len(str(extra)))
    _, heard = client.make(graph, extra_data=extra)
    assert "progress" in heard.types
    assert not heard.binary


def test_pictures_may_come_over_the_socket(client: ComfyUI) -> None:
    graph = default_graph()
    graph["save_image_websocket_node"] = node("SaveImageWebsocket", images=["8", 0])
    del graph["9"]
    prompt_id = client.start(graph, extra_data={"preview_method": "none"})
    (message,) = client.hear(prompt_id).binary
    assert header_of(message) == (1, 2)
    assert pixels_of(message[8:]).shape == (96, 96, 3)


def test_batch_is_as_many_pictures(client: ComfyUI) -> None:
    graph = default_graph()
    graph["5"]["inputs"]["batch_size"] = 2
    entry, _ = client.make(graph)
    names = [image["filename"] for image in entry["outputs"]["9"]["images"]]
    assert len(set(names)) == 2


def test_one_graph_may_have_two_samplers_and_show_one_twice(client: ComfyUI) -> None:
    graph = default_graph()
    graph["13"] = node("KSampler", **{**graph["3"]["inputs"], "seed": 8})
    graph["18"] = node("VAEDecode", samples=["13", 0], vae=["4", 2])
    graph["19"] = node("PreviewImage", images=["18", 0])
    graph["20"] = node("PreviewImage", images=["8", 0])
    entry, heard = client.make(graph)
    pictures = {key: pixels_of(client.picture(entry, key)) for key in ("9", "19", "20")}
    assert np.array_equal(pictures["9"], pictures["20"])
    assert not np.array_equal(pictures["9"], pictures["19"])
    assert entry["outputs"]["19"]["images"][0]["type"] == "temp"
    executed = [data["node"] for data in heard.of("executing")]
    assert len(executed) == len(set(executed))


def test_picture_carries_its_graph_and_its_parameters(client: ComfyUI) -> None:
    graph = default_graph(seed=5)
    info = {"extra_pnginfo": {"workflow": {"nodes": [1]}}}
    entry, _ = client.make(graph, extra_data=info)
    file = client.picture(entry)
    with Image.open(io.BytesIO(file)) as picture:
        assert json.loads(picture.info["prompt"]) == graph
        assert json.loads(picture.info["workflow"]) == {"nodes": [1]}
    assert read_parameters(file).params.seed == 5


def test_interrupt_ends_what_runs(client: ComfyUI) -> None:
    prompt_id = client.start(long_graph())
    client.hear(prompt_id, until="progress")
    assert ids_in(client, "queue_running") == [prompt_id]
    assert client.post("/interrupt").status_code == 200
    heard = client.hear(prompt_id)
    (interrupted,) = heard.of("execution_interrupted")
    assert (interrupted["node_id"], interrupted["node_type"]) == ("3", "KSampler")
    status = client.history(prompt_id)["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}


def test_interrupt_of_another_prompt_leaves_what_runs(client: ComfyUI) -> None:
    prompt_id = client.start(long_graph())
    client.hear(prompt_id, until="progress")
    client.post("/interrupt", json={"prompt_id": "another"})
    client.hear(prompt_id, until="progress")
    client.post("/interrupt", json={"prompt_id": prompt_id})
    assert "execution_interrupted" in client.hear(prompt_id).types


def test_waiting_prompts_are_dropped_and_running_ones_are_not(
    engine: EngineProcess, keys: Path
) -> None:
    with (
        serving(app_over(engine.client, api_keys_file=str(keys))) as url,
        comfyui(url, key="alice-key-0123456789") as client,
    ):
        first, second, third = (client.start(long_graph()) for _ in range(3))
        client.hear(first, until="progress")
        assert ids_in(client, "queue_running") == [first]
        assert ids_in(client, "queue_pending") == [second, third]
        client.post("/queue", json={"delete": [second, first]})
        assert ids_in(client, "queue_pending") == [third]
        client.post("/queue", json={"clear": True})
        assert ids_in(client, "queue_pending") == []
        assert ids_in(client, "queue_running") == [first]
        client.post("/interrupt")
        client.hear(first)
        assert list(client.get("/history").json()) == [first]
        assert client.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}


def test_prompts_and_files_are_their_owners_only(engine: EngineProcess, keys: Path) -> None:
    with (
        serving(app_over(engine.client, api_keys_file=str(keys))) as url,
        comfyui(url, key="alice-key-0123456789") as alice,
        comfyui(url, key="robert-key-0123456789") as robert,
    ):
        entry, _ = alice.make(default_graph(steps=1))
        place = entry["outputs"]["9"]["images"][0]
        assert robert.get("/history").json() == {}
        assert robert.get("/view", params=place).status_code == 404
        running = alice.start(long_graph())
        alice.hear(running, until="progress")
        robert.post("/interrupt")
        assert ids_in(robert, "queue_running") == []
        assert ids_in(alice, "queue_running") == [running]
        alice.post("/interrupt")
        alice.hear(running)


def test_prompt_beyond_the_queue_is_told_to_come_again(engine: EngineProcess) -> None:
    with serving(app_over(engine.client, max_queue_size=1)) as url, comfyui(url) as client:
        prompt_id = client.start(long_graph())
        refused = client.queue(default_graph())
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "queue_full"
        assert refused.json()["node_errors"] == {}
        assert "retry-after" in refused.headers
        client.hear(prompt_id, until="progress")
        client.post("/interrupt")
        client.hear(prompt_id)


def test_image_to_image_starts_from_an_upload(client: ComfyUI) -> None:
    grey = np.full((100, 130, 3), 128, np.uint8)
    stored = client.upload(png_of(grey), subfolder="mine")
    assert stored == {"name": "picture.png", "subfolder": "mine", "type": "input"}
    graph = default_graph(denoise=0.5)
    graph["1"] = node("LoadImage", image="mine/picture.png")
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    entry, _ = client.make(graph)
    assert pixels_of(client.picture(entry)).shape == (96, 128, 3)
    seen = client.get("/view", params={"filename": "picture.png", "subfolder": "mine"})
    assert seen.status_code == 404
    place = {"filename": "picture.png", "subfolder": "mine", "type": "input"}
    assert np.array_equal(pixels_of(client.get("/view", params=place).content), grey)


@pytest.mark.parametrize("encoder", ["VAEEncodeForInpaint", "SetLatentNoiseMask"])
def test_inpainting_changes_what_is_masked(client: ComfyUI, encoder: str) -> None:
    entry, _ = client.make(inpainting(client, encoder, denoise=0.75))
    change = np.abs(pixels_of(client.picture(entry)).astype(int) - 128)
    assert change[:, :40].mean() < 20
    assert change[:, 56:].mean() > 50


@pytest.mark.parametrize(("channel", "changes"), [("red", False), ("green", True)])
def test_mask_may_be_a_channel_of_a_picture(client: ComfyUI, channel: str, changes: bool) -> None:
    green = np.zeros((48, 48, 3), np.uint8)
    green[..., 1] = 255
    name = client.upload(png_of(green), "mask.png")["name"]
    made = []
    for denoise in (0.5, 0.75):
        graph = inpainting(client, "VAEEncodeForInpaint", denoise=denoise)
        graph["10"] = node("LoadImageMask", image=name, channel=channel)
        graph["5"]["inputs"]["mask"] = ["10", 0]
        made.append(pixels_of(client.picture(client.make(graph)[0])))
    assert np.array_equal(*made) is not changes


def test_output_may_be_loaded_again(client: ComfyUI) -> None:
    entry, _ = client.make(default_graph())
    name = entry["outputs"]["9"]["images"][0]["filename"]
    graph = default_graph(denoise=0.5)
    graph["1"] = node("LoadImage", image=f"{name} [output]")
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    assert client.make(graph)[0]["status"]["completed"]


def test_upload_of_a_taken_name_gets_another(client: ComfyUI) -> None:
    first, other = (png_of(np.full((8, 8, 3), value, np.uint8)) for value in (1, 2))
    name = client.upload(first, "taken.png")["name"]
    assert client.upload(first, "taken.png")["name"] == name
    assert client.upload(other, "taken.png")["name"] != name
    assert client.upload(other, "taken.png", overwrite="true")["name"] == name
    choices = client.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]
    assert name in choices["image"][0]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\x.png", "a/../../b.png"])
def test_names_of_files_lead_nowhere(client: ComfyUI, name: str) -> None:
    for place in ({"filename": name}, {"filename": "x.png", "subfolder": name}):
        for folder in ("input", "output", "temp", "../output"):
            assert client.get("/view", params={**place, "type": folder}).status_code == 404
    stored = client.upload(png_of(np.zeros((8, 8, 3), np.uint8)), name, subfolder=name)
    assert ".." not in stored["name"] + stored["subfolder"]
    graph = default_graph(denoise=0.5)
    graph["1"] = node("LoadImage", image=name)
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    assert client.queue(graph).json()["node_errors"]["1"]["errors"]
    graph = default_graph()
    graph["9"]["inputs"]["filename_prefix"] = f"{name}/../x"
    entry, _ = client.make(graph)
    (image,) = entry["outputs"]["9"]["images"]
    assert ".." not in image["filename"] + image["subfolder"]
    assert client.picture(entry)


def test_file_is_viewed_as_it_is_stored_and_that_is_said(client: ComfyUI) -> None:
    file = png_of(np.full((8, 8, 3), 9, np.uint8))
    place = {"filename": client.upload(file, "viewed.png")["name"], "type": "input"}
    plain = client.get("/view", params=place)
    assert (plain.content, plain.headers.get("x-warnings")) == (file, None)
    converted = client.get("/view", params={**place, "channel": "a", "preview": "webp;50"})
    assert converted.content == file
    assert converted.headers["x-warnings"] == "channel has no effect; preview has no effect"


def test_upload_that_is_no_picture_is_refused(client: ComfyUI) -> None:
    response = client.post("/upload/image", files={"image": ("a.png", b"GIF89a <script>")})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_history_can_be_paged_and_forgotten(client: ComfyUI) -> None:
    ids = [client.start(default_graph(steps=1)) for _ in range(3)]
    empty = {"queue_running": [], "queue_pending": []}
    assert eventually(lambda: client.get("/queue").json() == empty)
    known = list(client.get("/history").json())
    assert set(ids) <= set(known)  # They may end in any order.
    assert list(client.get("/history", params={"max_items": 2}).json()) == known[-2:]
    page = client.get("/history", params={"max_items": 1, "offset": 1}).json()
    assert list(page) == known[1:2]
    client.post("/history", json={"delete": [ids[0]]})
    assert client.get(f"/history/{ids[0]}").json() == {}
    client.post("/history", json={"clear": True})
    assert client.get("/history").json() == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/history", {"delete": {}}),
        ("/history", {"delete": [{}]}),
        ("/queue", {"clear": "yes"}),
        ("/queue", {"delete": "all"}),
        ("/interrupt", {"prompt_id": {}}),
    ],
)
def test_what_names_no_prompts_is_refused(client: ComfyUI, path: str, body: object) -> None:
    assert client.post(path, json=body).status_code == 400


def test_prompt_id_of_the_client_is_kept_and_used_once(client: ComfyUI) -> None:
    assert client.start(default_graph(steps=1), prompt_id="mine") == "mine"
    client.hear("mine")
    again = client.queue(default_graph(), prompt_id="mine")
    assert again.status_code == 400
    assert again.json()["error"]["type"] == "invalid_prompt_id"


def test_every_route_is_also_under_api(url: str) -> None:
    with comfyui(url, path="/api/ws") as client:
        for path in (
            *("/object_info", "/system_stats", "/features", "/embeddings", "/models", "/users"),
            *("/extensions", "/settings", "/settings/Comfy.Locale", "/experiment/models"),
        ):
            assert client.get(f"/api{path}").status_code == client.get(path).status_code == 200
        body = {"prompt": default_graph(steps=1), "client_id": client.client_id}
        prompt_id = client.post("/api/prompt", json=body).json()["prompt_id"]
        client.hear(prompt_id)
        assert prompt_id in client.get(f"/api/history/{prompt_id}").json()


def test_machine_and_models_are_told(client: ComfyUI) -> None:
    stats = client.get("/system_stats").json()
    assert stats["system"]["ram_total"] > 0
    assert stats["devices"][0]["type"] == "cpu"
    (name,) = client.get("/models/checkpoints").json()
    loader = client.get("/object_info/CheckpointLoaderSimple").json()["CheckpointLoaderSimple"]
    assert loader["input"]["required"]["ckpt_name"][0] == [name]
    assert client.get("/models/loras").json() == []
    for folder in ("checkpoints", "diffusion_models", "text_encoders", "vae"):
        assert client.get(f"/models/{folder}").json() == [name]
        (entry,) = client.get(f"/experiment/models/{folder}").json()
        assert entry["name"] == name
    assert client.get("/models/passwords").status_code == 404
    assert client.get("/experiment/models/passwords").status_code == 404
    assert client.get("/settings").json() == {}
    assert client.get("/settings/Comfy.Locale").json() is None
    assert client.get("/object_info/NoSuchNode").json() == {}


def test_socket_that_comes_back_hears_where_its_prompt_is(client: ComfyUI, url: str) -> None:
    prompt_id = client.start(long_graph())
    client.hear(prompt_id, until="progress")
    client.socket.close()
    address = f"ws{url.removeprefix('http')}/ws?clientId={client.client_id}"
    with connect(address) as client.socket:
        first = client.hear(prompt_id, until="progress")
        assert [data["node"] for data in first.of("executing")] == ["3"]
        client.post("/interrupt")
        client.hear(prompt_id)


def test_socket_bears_nonsense(client: ComfyUI) -> None:
    for message in ("{", "[]", "null", '{"type":"feature_flags","data":3}', b"\0", "[" * 60_000):
        client.socket.send(message)
    assert client.make(default_graph(steps=1))[0]["status"]["completed"]


def test_keys_hold_for_sockets_and_routes(engine: EngineProcess) -> None:
    with serving(app_over(engine.client, api_key="secret")) as url:
        with pytest.raises(InvalidStatus), comfyui(url):
            pass
        for path in ("/object_info", "/queue", "/history", "/view?filename=a", "/api/queue"):
            assert httpx2.get(url + path).status_code == 401
        with comfyui(url, key="secret") as client:
            assert client.make(default_graph(steps=1))[0]["status"]["completed"]


def test_page_of_another_site_gets_no_socket(url: str) -> None:
    with pytest.raises(InvalidStatus):
        connect(f"ws{url.removeprefix('http')}/ws", origin="https://example.com")
