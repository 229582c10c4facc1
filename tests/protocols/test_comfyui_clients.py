"""Unmodified clients of ComfyUI: comfy-api-simplified, @stable-canvas/comfyui-client in Node, and
the calls of SillyTavern's server."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from comfyui_client import default_graph, png_of
from http_serving import eventually
from PIL import Image
from told import texts

PACKAGES = ("@stable-canvas/comfyui-client@1.5.9", "ws@8")
SCRIPT = Path(__file__).parents[1] / "helpers" / "comfyui_node_client.js"


def titled(**sampling: Any) -> dict[str, Any]:
    """A graph whose nodes have titles, by which comfy-api-simplified finds them."""
    graph = default_graph(**sampling)
    titles = {"6": "Positive", "9": "Save Image"}
    for key, each in graph.items():
        each["_meta"] = {"title": titles.get(key, f"Node {key}")}
    return graph


def size_of(file: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_comfy_api_simplified_gets_the_finished_image(url: str, tmp_path: Path) -> None:
    package = pytest.importorskip("comfy_api_simplified")
    api = package.ComfyApiWrapper(url)
    workflow = package.ComfyWorkflowWrapper(titled(seed=51, steps=20))
    workflow.set_node_param("Positive", "text", "a blue heart")
    made = api.queue_and_wait_images(workflow, "Save Image")
    (name,) = made
    assert name.startswith("ComfyUI_")
    assert size_of(made[name]) == (96, 96)
    assert api.queue_and_wait_images(workflow, "Save Image") == made  # From the cache.
    path = tmp_path / "a.png"
    path.write_bytes(png_of(np.zeros((96, 96, 3), np.uint8)))
    assert api.upload_image(path)["subfolder"] == "default_upload_folder"
    assert api.get_queue() == {"queue_running": [], "queue_pending": []}
    assert "KSampler" in api.get_object_info()
    assert api.get_object_info("VAELoader")["VAELoader"]["name"] == "VAELoader"
    assert api.get_system_stats()["devices"]
    assert api.get_embeddings() == []
    api.interrupt()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of the Node client."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", *PACKAGES]
    installed = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if installed.returncode:
        pytest.skip("npm can't reach its registry")
    return folder / "node_modules"


def test_node_client_gets_the_finished_image(url: str, packages: Path) -> None:
    host = url.removeprefix("http://")
    ran = subprocess.run(
        ["node", str(SCRIPT)],
        input=json.dumps(default_graph(seed=52, steps=20)),
        env={**os.environ, "NODE_PATH": str(packages), "HOST": host},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["steps"][-1] == 20
    (image,) = said["first"]["images"]
    assert image["type"] == "url"
    assert size_of(httpx2.get(image["data"]).content) == (96, 96)
    assert said["again"]["images"] == said["polled"]["images"] == [image]
    lists = said["lists"]
    assert lists["models"] == lists["vaes"] == [lists["files"][0]["name"]]
    assert (lists["extensions"], lists["settings"], lists["setting"]) == ([], {}, None)
    assert "karras" in lists["schedulers"]
    assert "euler" in lists["samplers"]


def test_calls_of_the_node_client_without_node(url: str) -> None:
    """The requests that it sends: a workflow that is undefined, and bodies that are missing."""
    info = {"extra_pnginfo": {}}
    body = {"client_id": "x", "prompt": default_graph(seed=53, steps=1), "extra_data": info}
    prompt_id = httpx2.post(f"{url}/prompt?clientId=x", json=body).json()["prompt_id"]
    params = {"max_items": "200", "clientId": "x"}

    def ended() -> bool:
        return prompt_id in httpx2.get(f"{url}/history", params=params).json()

    assert eventually(ended)
    for path in ("free", "interrupt"):
        assert httpx2.post(f"{url}/{path}?clientId=x").status_code == 200
    nothing = httpx2.get(f"{url}/settings/Comfy.Locale?clientId=x")
    assert (nothing.status_code, nothing.json()) == (200, None)


def test_sillytavern_lists_models_and_gets_an_image(url: str) -> None:
    assert httpx2.get(f"{url}/system_stats").status_code == 200
    nodes = httpx2.get(f"{url}/object_info").json()

    def choices(node: str, name: str) -> list[str]:
        return list(nodes[node]["input"]["required"][name][0])

    (model,) = choices("CheckpointLoaderSimple", "ckpt_name")
    assert choices("UNETLoader", "unet_name") == choices("VAELoader", "vae_name") == [model]
    sampler, scheduler = choices("KSampler", "sampler_name")[0], choices("KSampler", "scheduler")[0]
    graph = default_graph(seed=54, steps=2, sampler_name=sampler, scheduler=scheduler)
    graph["4"]["inputs"]["ckpt_name"] = model
    # As text without a content type, and without an id of the client.
    sent = json.dumps({"prompt": graph}).encode()
    prompt_id = httpx2.post(f"{url}/prompt", content=sent).json()["prompt_id"]
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx2.get(f"{url}/history").json().get(prompt_id, {}))
        return bool(found)

    assert eventually(ended)
    assert found["status"]["status_str"] == "success"
    assert texts(found["status"]["messages"][-1][1]["warnings"]) == [
        "node 7: text has no effect: it needs a larger true_cfg_scale"
    ]
    (image,) = (image for each in found["outputs"].values() for image in each["images"])
    query = f"filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
    assert size_of(httpx2.get(f"{url}/view?{query}").content) == (96, 96)


@pytest.mark.parametrize("node", ["UNETLoader", "VAELoader", "KSampler", "SamplerCustomAdvanced"])
def test_one_nodes_definition_is_that_of_the_list(url: str, node: str) -> None:
    whole = httpx2.get(f"{url}/object_info").json()
    assert httpx2.get(f"{url}/object_info/{node}").json() == {node: whole[node]}
    assert httpx2.get(f"{url}/object_info/No{node}").json() == {}
