"""A model path leads to a folder, or to an error that says what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.launch.hub import wanted_files
from multimodal_gen.launch.model_path import BUNDLED_MODEL, ModelFiles, find_model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = b'{"transformer": ["diffusers", "FluxTransformer2DModel"]}'
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
FILES = {
    "model_index.json": INDEX,
    "vae/config.json": b"[]",
    "evil.py": b"",
    "a.safetensors": b"",
    WEIGHTS: b"",
}


class Hub(BaseHTTPRequestHandler):
    """A hub with one open repository, one gated, and nothing else."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/open/model"):
            siblings = [{"rfilename": name} for name in FILES]
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in FILES.items()
            ]
            info = {"id": "open/model", "sha": COMMIT, "siblings": siblings}
            self._answer(200, json.dumps(entries if "/tree/" in self.path else info).encode())
        elif (name := re.sub(f"^/open/model/resolve/(main|{COMMIT})/", "", self.path)) in FILES:
            self._answer(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        elif self.path.startswith("/open/model/resolve/"):
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif "gated" in self.path:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def resolve_with(
    model_path: str,
    cache: Path,
    base: str | None = None,
    component: str | None = None,
    **environment: str,
) -> str:
    """Return what `find_model_files` finds in a process of its own: the hub reads settings once."""
    script = (
        "import sys; from multimodal_gen.launch.model_path import find_model_files\n"
        "base = sys.argv[2] or None\n"
        "files = dict(each.split('=') for each in sys.argv[3:])\n"
        "try: print(find_model_files(sys.argv[1], None, base, files).folder)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "COV"))}
    done = subprocess.run(
        [sys.executable, "-c", script, model_path, base or "", *([component] if component else [])],
        env=clean | {"HF_HOME": str(cache)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_nothing_said_is_the_bundled_model() -> None:
    assert find_model_files(None) == ModelFiles(BUNDLED_MODEL)
    assert (BUNDLED_MODEL / "model_index.json").is_file()


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    assert find_model_files(str(tmp_path)) == ModelFiles(tmp_path)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"has no model_index\.json"):
        find_model_files(str(tmp_path))


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./nowhere", "../x", "a/b/c", "a--b/c", "", "a/..", "https://x/y"]
)
def test_what_is_neither_a_folder_nor_a_hub_name_is_refused(path: str) -> None:
    with pytest.raises(
        InvalidCheckpoint, match=r"no such file or folder, and not a hub name|has no model"
    ):
        find_model_files(path)


def test_a_component_must_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    for path in (str(tmp_path), "/no/such/file.gguf", "owner/name"):
        with pytest.raises(InvalidCheckpoint, match=f"component=vae={path}: must be a weight file"):
            find_model_files(str(tmp_path), component_files={"vae": path})


def test_weights_of_a_component_with_a_file_are_not_fetched(hub: str, tmp_path: Path) -> None:
    (tmp_path / "dit.gguf").touch()
    component = f"transformer={tmp_path}/dit.gguf"
    folder = Path(resolve_with("open/model", tmp_path / "x", None, component, HF_ENDPOINT=hub))
    assert (folder / "vae/config.json").is_file()
    assert not (folder / WEIGHTS).exists()


def test_offline_without_a_copy_says_what_to_do(tmp_path: Path) -> None:
    said = resolve_with("open/model", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith(
        "InvalidCheckpoint open/model: HF_HUB_OFFLINE is set, and it is not in the cache"
    )


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    said = resolve_with("open/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert said.startswith("InvalidCheckpoint open/model: the hub can't be reached")


def test_a_download_holds_only_what_an_engine_reads_and_serves_offline(
    hub: str, tmp_path: Path
) -> None:
    folder = resolve_with("open/model", tmp_path, HF_ENDPOINT=hub)
    found = {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}
    assert found == {"model_index.json", "vae/config.json", WEIGHTS}
    assert resolve_with("open/model", tmp_path, HF_HUB_OFFLINE="1") == folder


def test_a_gated_model_says_how_to_get_in(hub: str, tmp_path: Path) -> None:
    said = resolve_with("some/gated", tmp_path, HF_ENDPOINT=hub)
    assert said.startswith(
        "InvalidCheckpoint some/gated: access is restricted; accept its terms at https://"
    )


def test_an_unknown_name_says_so(hub: str, tmp_path: Path) -> None:
    said = resolve_with("no/such", tmp_path, HF_ENDPOINT=hub)
    assert said.startswith(
        "InvalidCheckpoint no/such: neither a local folder nor a model on the hub"
    )


def test_of_weights_in_several_variants_the_plain_ones_are_taken() -> None:
    names = [
        "unet/model.safetensors",
        "unet/model.fp16.safetensors",
        "te/model.safetensors.index.json",
        "te/model-00001-of-00002.safetensors",
        "te/model-00001-of-00002.fp16.safetensors",
        "te/model.fp16-00001-of-00002.safetensors",
        "vae/model.fp16.safetensors",
        "vae/model.bin",
        "vae/config.json",
        "tokenizer/merges.txt",
        "flux1-dev.safetensors",
        "README.md",
        "model_index.json",
    ]
    assert wanted_files(names) == [names[i] for i in (0, 2, 3, 6, 8, 9, 12)]


def flux_file(folder: Path) -> Path:
    """What looks like FLUX.1's transformer."""
    names = ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight")
    save_file({name: torch.ones(2) for name in names}, folder / "flux.safetensors")
    return folder / "flux.safetensors"


def test_of_a_base_only_what_the_file_lacks_is_fetched(hub: str, tmp_path: Path) -> None:
    file = flux_file(tmp_path)
    folder = resolve_with(str(file), tmp_path, "open/model", HF_ENDPOINT=hub)
    found = {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}
    assert found == {"model_index.json", "vae/config.json"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("open/model/a.safetensors", "a.safetensors: not a valid safetensors file (damaged"),
        ("open/model/b.gguf", "open/model/b.gguf: no such file in open/model"),
        ("no/such/b.gguf", "no/such: neither a local folder nor a model on the hub"),
    ],
)
def test_a_single_file_may_be_on_the_hub(name: str, told: str, hub: str, tmp_path: Path) -> None:
    assert resolve_with(name, tmp_path, HF_ENDPOINT=hub).startswith(f"InvalidCheckpoint {told}")


def test_what_is_in_the_cache_is_located_without_the_hub(hub: str, tmp_path: Path) -> None:
    folder = resolve_with("open/model", tmp_path, HF_ENDPOINT=hub)
    program = (
        "import sys; from multimodal_gen.launch.model_path import locate\n"
        "print(locate('open/model'))\n"
        "try: locate('no/such')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        folder,
        "no/such: neither a local path nor in the hub's cache",
    ]
