"""A ComfyUI client as people write them: a graph is sent, its events are heard on a WebSocket."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from websockets.sync.client import ClientConnection, connect

Graph = dict[str, Any]


def default_graph(text: str = "a red heart", steps: int = 4, **sampling: Any) -> Graph:
    """The seven nodes of ComfyUI's default workflow, in its API format."""
    inputs = {
        "seed": 7,
        "steps": steps,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    size = {"width": 96, "height": 96, "batch_size": 1}
    return {
        "3": node("KSampler", **{**inputs, **sampling}),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", **size),
        "6": node("CLIPTextEncode", text=text, clip=["4", 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


def long_graph() -> Graph:
    """One that is still under way when a test looks at it."""
    graph = default_graph(steps=1000)
    graph["5"]["inputs"].update(width=128, height=128)
    return graph


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@dataclass
class Heard:
    """What came over the socket until a prompt had ended."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    binary: list[bytes] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [type for type, _ in self.events]

    def of(self, type: str) -> list[dict[str, Any]]:
        return [data for each, data in self.events if each == type]


@dataclass
class ComfyUI:
    url: str
    socket: ClientConnection
    client_id: str
    headers: dict[str, str]

    def queue(self, graph: Any, **fields: Any) -> httpx2.Response:
        # As urllib sends it: without saying that it is JSON.
        body = json.dumps({"prompt": graph, "client_id": self.client_id, **fields})
        return self.post("/prompt", content=body.encode())

    def start(self, graph: Graph, **fields: Any) -> str:
        response = self.queue(graph, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["prompt_id"])

    def make(self, graph: Graph, **fields: Any) -> tuple[dict[str, Any], Heard]:
        """The history of a prompt that ended, and what was heard of it."""
        prompt_id = self.start(graph, **fields)
        heard = self.hear(prompt_id)
        return self.history(prompt_id), heard

    def previews(self) -> list[bytes]:
        """Those of a prompt that is interrupted after the first; at least that one."""
        prompt_id = self.start(long_graph(), extra_data={"preview_method": "auto"})
        shown = self.hear(prompt_id, until="preview").binary
        self.post("/interrupt", json={"prompt_id": prompt_id})
        return shown + self.hear(prompt_id).binary

    def hear(self, prompt_id: str, until: str = "executing") -> Heard:
        """All until the prompt has ended, or until the first event of another type (`preview`: the
        first binary message)."""
        heard = Heard()
        while True:
            message = self.socket.recv(timeout=60)
            if isinstance(message, bytes):
                heard.binary.append(message)
                if until == "preview":
                    return heard
                continue
            event = json.loads(message)
            heard.events.append((event["type"], event["data"]))
            ended = until != "executing" or event["data"].get("node", "") is None
            if event["type"] == until and event["data"].get("prompt_id") == prompt_id and ended:
                return heard

    def history(self, prompt_id: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.get(f"/history/{prompt_id}").json()[prompt_id]
        return entry

    def picture(self, entry: dict[str, Any], node_id: str = "9") -> bytes:
        response = self.get("/view", params=entry["outputs"][node_id]["images"][0])
        assert response.status_code == 200, response.text
        return response.content

    def upload(self, file: bytes, name: str = "picture.png", **fields: str) -> dict[str, str]:
        files = {"image": (name, file, "image/png")}
        response = self.post("/upload/image", files=files, data=fields)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def get(self, path: str, **request: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=self.headers, timeout=30, **request)

    def post(self, path: str, **request: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, headers=self.headers, timeout=30, **request)


@contextlib.contextmanager
def comfyui(url: str, key: str | None = None, path: str = "/ws") -> Iterator[ComfyUI]:
    """A client whose socket is open and has heard its first status."""
    client_id = str(uuid.uuid4())
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    address = f"ws{url.removeprefix('http')}{path}?clientId={client_id}"
    with connect(address, additional_headers=headers, max_queue=None) as socket:
        status = json.loads(socket.recv(timeout=30))
        assert status["type"] == "status"
        assert status["data"]["sid"] == client_id
        yield ComfyUI(url, socket, client_id, headers)


def header_of(message: bytes) -> tuple[int, ...]:
    return struct.unpack(">II", message[:8])


def png_of(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
