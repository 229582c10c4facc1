"""What ComfyUI's routes keep is counted by owner: nothing goes for another's sake."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from multimodal_gen.entrypoints.http.comfyui import files as comfyui_files
from multimodal_gen.entrypoints.http.comfyui import prompts as comfyui_prompts
from multimodal_gen.entrypoints.http.comfyui.files import Files, Place
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompt, Prompts
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.storage.results import Results

ANNE, BOB = Owner("anne"), Owner("bob")


def uploaded(files: Files, owner: Owner, name: str) -> Place:
    return files.upload(owner, Place("input", "", name), name.encode() * 100, overwrite=False)


def test_one_keys_uploads_never_make_anothers_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfyui_files, "MAX_FILES", 3)
    files = Files(Results(tmp_path, quota_gb=2000e-9))
    mine = uploaded(files, ANNE, "anne.png")
    for number in range(10):
        uploaded(files, BOB, f"{number}.png")
    assert files.read(ANNE, mine) == b"anne.png" * 100
    assert files.uploads(ANNE) == ["anne.png"]
    assert files.uploads(BOB) == ["7.png", "8.png", "9.png"]


def ended(owner: Owner, name: str) -> Prompt:
    return Prompt(
        id=name,
        number=0,
        owner=owner,
        model="owner/name",
        client_id=None,
        graph={},
        extra_data={},
        parts=[],
        outputs=[],
        warnings=[],
    )


def test_one_keys_prompts_never_push_anothers_out_of_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comfyui_prompts, "MAX_HISTORY", 3)
    prompts = Prompts()
    prompts.end(ended(ANNE, "a"))
    for number in range(10):
        prompts.end(ended(BOB, str(number)))
    assert list(prompts.history(ANNE)) == ["a"]
    assert list(prompts.history(BOB)) == ["7", "8", "9"]


def test_an_owners_history_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(msgspec.json.encode(ended(ANNE, "a").ended()))
    monkeypatch.setattr(comfyui_prompts, "MAX_HISTORY_BYTES", 2 * size)
    prompts = Prompts()
    for name in ("a", "b", "b", "c"):
        prompts.end(ended(ANNE, name))
    assert list(prompts.history(ANNE)) == ["b", "c"]
