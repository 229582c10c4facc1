"""What ComfyUI's clients hear of a prompt's execution, and what is not executed again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from comfyui_client import ComfyUI, comfyui, default_graph, long_graph, node, png_of
from PIL import Image
from told import texts
from websockets.exceptions import ConnectionClosedOK
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
    first, second = sorted(texts(said["warnings"]))
    assert first.startswith("CheckpointLoaderSimple 4: ckpt_name=v1-5-pruned-emaonly.safetensors")
    assert second.startswith("KSampler 3: sampler_name=heunpp2 is not available")
    client.hear(said["prompt_id"])
    status = client.history(said["prompt_id"])["status"]
    assert status["status_str"] == "success"
    idle = "node 7: text has no effect: it needs a larger true_cfg_scale"
    assert texts(status["messages"][-1][1]["warnings"]) == [*texts(said["warnings"]), idle]


def test_keys_of_paid_nodes_are_not_kept(client: ComfyUI) -> None:
    keys = {"api_key_comfy_org": "sk-1", "auth_token_comfy_org": "sk-2"}
    prompt_id = client.start(default_graph(seed=43, steps=1), extra_data={**keys, "mine": 1})
    client.hear(prompt_id)
    entry = client.history(prompt_id)
    assert entry["prompt"][3]["mine"] == 1
    job = client.get(f"/api/jobs/{prompt_id}").text
    assert "sk-" not in json.dumps(entry) + job


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
        with pytest.raises(ConnectionClosedOK):
            first.recv(timeout=30)
        assert json.loads(second.recv(timeout=30))["type"] == "status"
        second.send(json.dumps({"type": "feature_flags", "data": {}}))
        assert json.loads(second.recv(timeout=30))["type"] == "feature_flags"


def test_jobs_are_prompts_in_any_state(client: ComfyUI) -> None:
    info = {"extra_pnginfo": {"workflow": {"id": "mine"}}}
    prompt_id = client.start(default_graph(seed=61, steps=2), extra_data=info)
    client.hear(prompt_id)
    job = client.get(f"/api/jobs/{prompt_id}").json()
    assert (job["status"], job["workflow_id"], job["outputs_count"]) == ("completed", "mine", 1)
    assert job["create_time"] <= job["execution_start_time"] <= job["execution_end_time"]
    assert job["outputs"] == client.history(prompt_id)["outputs"]
    preview = job["preview_output"]
    assert (preview["nodeId"], preview["mediaType"], preview["type"]) == ("9", "images", "output")
    mine = client.get("/api/jobs", params={"workflow_id": "mine", "status": "completed"}).json()
    assert [each["id"] for each in mine["jobs"]] == [prompt_id]
    assert mine["pagination"] == {"offset": 0, "limit": None, "total": 1, "has_more": False}
    assert client.get("/api/jobs/nothing").status_code == 404


def test_jobs_run_are_interrupted_and_paged(client: ComfyUI) -> None:
    running = client.start(long_graph())
    client.hear(running, until="progress")
    assert client.get(f"/api/jobs/{running}").json()["status"] == "in_progress"
    client.post("/interrupt")
    client.hear(running)
    listed = client.get("/api/jobs", params={"status": "cancelled"}).json()["jobs"]
    assert running in [job["id"] for job in listed]
    first, second = (
        client.get("/api/jobs", params={"limit": 1, "offset": offset}).json() for offset in (0, 1)
    )
    assert first["jobs"][0]["create_time"] >= second["jobs"][0]["create_time"]
    assert first["pagination"]["has_more"]
    rising = client.get("/api/jobs", params={"sort_order": "asc"}).json()["jobs"]
    times = [job["create_time"] for job in rising]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("/history", "max_items=x", "max_items must be an integer"),
        ("/history", "offset=x", "offset must be an integer"),
        ("/api/jobs", "limit=x", "limit must be an integer"),
        ("/api/jobs", "limit=0", "limit must be a positive integer"),
        ("/api/jobs", "sort_by=size", "sort_by must be 'created_at' or 'execution_duration'"),
        ("/api/jobs", "sort_order=up", "sort_order must be 'asc' or 'desc'"),
    ],
)
def test_wrong_queries_are_told_as_by_comfyui(
    client: ComfyUI, path: str, query: str, error: str
) -> None:
    response = client.get(f"{path}?{query}")
    assert (response.status_code, response.json()) == (400, {"error": error})


def test_template_of_separate_files_makes_the_same_image(client: ComfyUI) -> None:
    """FLUX's template, with all its loaders and a custom sampler, against the default graph."""
    entry, _ = client.make(default_graph(seed=71, steps=3))
    graph = {
        "1": node("UNETLoader", unet_name="flux1-schnell.safetensors", weight_dtype="default"),
        "2": node("DualCLIPLoader", clip_name1="t5", clip_name2="clip_l", type="flux"),
        "3": node("VAELoader", vae_name="ae.safetensors"),
        "4": node("CLIPTextEncode", clip=["2", 0], text="a red heart"),
        "5": node("EmptySD3LatentImage", width=96, height=96, batch_size=1),
        "6": node("BasicGuider", model=["1", 0], conditioning=["4", 0]),
        "7": node("KSamplerSelect", sampler_name="euler"),
        "8": node("BasicScheduler", model=["1", 0], scheduler="normal", steps=3, denoise=1.0),
        "10": node("RandomNoise", noise_seed=71),
        "11": node(
            "SamplerCustomAdvanced",
            noise=["10", 0],
            guider=["6", 0],
            sampler=["7", 0],
            sigmas=["8", 0],
            latent_image=["5", 0],
        ),
        "12": node("VAEDecode", samples=["11", 0], vae=["3", 0]),
        "9": node("SaveImage", images=["12", 0], filename_prefix="flux"),
    }
    template, heard = client.make(graph)
    assert {data["node"] for data in heard.of("progress")} == {"11"}
    first, second = (
        np.asarray(Image.open(io.BytesIO(client.picture(each)))) for each in (entry, template)
    )
    assert np.array_equal(first, second)
