"""What ComfyUI's clients hear of a prompt's execution, and what is not executed again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from comfyui_client import ComfyUI, comfyui, default_graph, node, png_of
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


@pytest.fixture
def client(url: str) -> Iterator[ComfyUI]:
    with comfyui(url) as client:
        yield client


def test_progress_state_tells_of_all_nodes(client: ComfyUI) -> None:
    prompt_id = client.start(default_graph(seed=31))
    heard = client.hear(prompt_id)
    states = heard.of("progress_state")
    assert {state["prompt_id"] for state in states} == {prompt_id}
    first, last = states[0]["nodes"], states[-1]["nodes"]
    assert {(node["state"], node["value"]) for node in first.values()} == {("running", 0)}
    assert set(last) == set(default_graph())
    assert {node["state"] for node in last.values()} == {"finished"}
    sampler = last["3"]
    assert (sampler["value"], sampler["max"]) == (4, 4)
    assert (sampler["node_id"], sampler["real_node_id"]) == ("3", "3")


def test_same_graph_again_is_not_run_again(client: ComfyUI) -> None:
    graph = default_graph(seed=32)
    entry, _ = client.make(graph)
    again, heard = client.make(graph)
    assert again["outputs"] == entry["outputs"]
    assert again["status"]["completed"]
    (cached,) = heard.of("execution_cached")
    assert sorted(cached["nodes"]) == sorted(graph)
    assert [data["node"] for data in heard.of("executing")] == [None]
    assert [data["output"] for data in heard.of("executed")] == [entry["outputs"]["9"]]
    assert "progress" not in heard.types
    names = [each for each, _ in again["status"]["messages"]]
    assert names == ["execution_start", "execution_cached", "execution_success"]


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("3", {"seed": 34}),
        ("3", {"cfg": 1.5}),
        ("6", {"text": "a blue heart"}),
        ("9", {"filename_prefix": "other"}),
    ],
)
def test_changed_graph_is_run(client: ComfyUI, key: str, change: dict[str, object]) -> None:
    graph = default_graph(seed=33, steps=1)
    entry, _ = client.make(graph)
    graph[key]["inputs"] |= change
    changed, heard = client.make(graph)
    assert "progress" in heard.types
    assert changed["outputs"] != entry["outputs"]


def test_only_changed_samplers_are_run(client: ComfyUI) -> None:
    graph = default_graph(seed=35, steps=1)
    client.make(graph)
    graph["13"] = node("KSampler", **{**graph["3"]["inputs"], "seed": 36})
    graph["18"] = node("VAEDecode", samples=["13", 0], vae=["4", 2])
    graph["19"] = node("PreviewImage", images=["18", 0])
    entry, heard = client.make(graph)
    executed = [data["node"] for data in heard.of("executing")]
    (cached,) = heard.of("execution_cached")
    assert sorted(cached["nodes"]) == ["3", "8", "9"]
    assert not {"3", "8", "9"} & set(executed)
    assert {"13", "18", "19"} <= set(executed)
    assert set(entry["outputs"]) == {"9", "19"}


def test_other_content_of_the_same_file_is_run(client: ComfyUI) -> None:
    graph = default_graph(denoise=0.5, seed=37, steps=2)
    graph["1"] = node("LoadImage", image="changing.png")
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    made = []
    for value in (0, 255):
        file = png_of(np.full((96, 96, 3), value, np.uint8))
        client.upload(file, "changing.png", overwrite="true")
        made.append(client.make(graph)[0]["outputs"])
    assert made[0] != made[1]


def test_freed_memory_holds_no_results(client: ComfyUI) -> None:
    graph = default_graph(seed=38, steps=1)
    client.make(graph)
    assert client.post("/free", json={"unload_models": True}).status_code == 200
    assert "progress" not in client.make(graph)[1].types
    assert client.post("/api/free", json={"free_memory": True}).status_code == 200
    assert "progress" in client.make(graph)[1].types


def test_only_the_targets_of_a_part_are_made(client: ComfyUI) -> None:
    graph = default_graph(seed=39, steps=1)
    graph["13"] = node("KSampler", **{**graph["3"]["inputs"], "seed": 40})
    graph["18"] = node("VAEDecode", samples=["13", 0], vae=["4", 2])
    graph["19"] = node("PreviewImage", images=["18", 0])
    entry, heard = client.make(graph, partial_execution_targets=["19"])
    assert set(entry["outputs"]) == {"19"}
    assert not {"3", "8", "9"} & {data["node"] for data in heard.of("executing")}
    for targets in ([], ["3"], ["nothing"]):
        refused = client.queue(graph, partial_execution_targets=targets)
        assert refused.status_code == 400
        assert refused.json()["error"]["type"] == "prompt_no_outputs"
    for targets in ("19", [19], {}):
        refused = client.queue(graph, partial_execution_targets=targets)
        assert refused.json()["error"]["type"] == "invalid_partial_execution_targets"


def test_what_has_no_effect_is_in_the_reply_and_the_history(client: ComfyUI) -> None:
    graph = default_graph(seed=41, steps=1, sampler_name="heunpp2")
    said = client.queue(graph).json()
    assert said["node_errors"] == {}
    first, second = sorted(said["warnings"])
    assert first.startswith("CheckpointLoaderSimple 4: ckpt_name=v1-5-pruned-emaonly.safetensors")
    assert second.startswith("KSampler 3: sampler_name=heunpp2 is not available")
    client.hear(said["prompt_id"])
    status = client.history(said["prompt_id"])["status"]
    assert status["status_str"] == "success"
    assert status["messages"][-1][1]["warnings"] == said["warnings"]


def test_several_frames_are_an_animated_webp(client: ComfyUI) -> None:
    graph = default_graph(seed=42, steps=1)
    saved = {"fps": 6.0, "lossless": True, "quality": 80, "method": "default"}
    graph["9"] = node("SaveAnimatedWEBP", images=["8", 0], filename_prefix="film", **saved)
    entry, _ = client.make(graph)
    result = entry["outputs"]["9"]
    assert result["animated"] == [True]
    assert result["images"][0]["filename"].endswith(".webp")
    with Image.open(io.BytesIO(client.picture(entry))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (96, 96))


def test_second_socket_of_a_client_closes_the_first(url: str) -> None:
    address = f"ws{url.removeprefix('http')}/ws?clientId=mine"
    with connect(address) as first, connect(address) as second:
        assert json.loads(first.recv(timeout=30))["type"] == "status"
        with pytest.raises(ConnectionClosed):
            first.recv(timeout=30)
        assert json.loads(second.recv(timeout=30))["type"] == "status"
        second.send(json.dumps({"type": "feature_flags", "data": {}}))
        assert json.loads(second.recv(timeout=30))["type"] == "feature_flags"
