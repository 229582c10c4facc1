"""What ranks on several hosts must have in common, and how they find each other."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.errors import InvalidRequest, ProtocolError
from multimodal_gen.messages.rendezvous import StoreCall
from multimodal_gen.runtime.distributed.agreement import require_alike, versions
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.content import content_digests
from multimodal_gen.runtime.scheduler.kept_keys import KeptKeys


def digests(folder: Path) -> dict[str, str]:
    return content_digests(Checkpoint.open(folder))


def test_a_copy_of_a_checkpoint_has_its_digests(bundled_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(bundled_model, copy)
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    (copy / "README.md").write_text("a file that is not read")
    assert digests(copy) == digests(bundled_model)


@pytest.mark.parametrize("which", [0, -1])
def test_a_checkpoint_with_one_other_tensor_has_another_digest(
    bundled_model: Path, tmp_path: Path, which: int
) -> None:
    copy = tmp_path / "other"
    shutil.copytree(bundled_model, copy)
    changed = max(copy.rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    tensor = list(read_header(changed).tensors.values())[which]
    with changed.open("r+b") as file:
        file.seek(tensor.start)
        file.write(os.urandom(tensor.size))
    ours, theirs = digests(bundled_model), digests(copy)
    assert {name for name in ours if ours[name] != theirs[name]} == {changed.parent.name}


def test_another_config_has_another_digest(bundled_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(bundled_model, copy)
    (copy / "model_index.json").write_text((copy / "model_index.json").read_text() + " ")
    ours, theirs = digests(bundled_model), digests(copy)
    assert {name for name in ours if ours[name] != theirs[name]} == {"model_index.json"}


def test_a_node_that_differs_is_named_with_what_differs() -> None:
    store = dist.HashStore()
    require_alike(store, 0, 0, {"torch": "2.11.0", "the content of vae": "a"})
    require_alike(store, 1, 1, {"torch": "2.11.0", "the content of vae": "a"})
    for facts, said in (
        ({"torch": "2.12.0", "the content of vae": "a"}, "torch is 2.12.0 on .*, but 2.11.0"),
        ({"torch": "2.11.0", "the content of vae": "b"}, "the content of vae is b on"),
        ({"torch": "2.11.0"}, "the content of vae is missing on"),
    ):
        with pytest.raises(InvalidRequest, match=f"node_rank=1: .*{said}"):
            require_alike(store, 2, 1, facts)


def test_versions_are_of_what_pixels_depend_on() -> None:
    assert versions().keys() == {"multimodal_gen", "torch", "diffusers", "transformers"}
    assert "missing" not in versions().values()


def test_kept_keys_do_what_torch_expects_of_a_store() -> None:
    keys, torchs = KeptKeys(), dist.HashStore()
    torchs.set_timeout(timedelta(seconds=1))

    def ask(**call: object) -> bytes | None:
        return keys.answer(StoreCall(rank=0, **call)).value  # type: ignore[arg-type]

    assert ask(op="get", key="a") is None
    ask(op="set", key="a", value=b"1")
    torchs.set("a", "1")
    assert ask(op="get", key="a") == torchs.get("a")
    for _ in range(2):
        assert ask(op="add", key="n", value=b"3") == b"%d" % torchs.add("n", 3)
    for expected, value in (("", "x"), ("y", "z"), ("x", "y")):
        kept = ask(op="compare_set", key="c", expected=expected.encode(), value=value.encode())
        assert kept == torchs.compare_set("c", expected, value)
    assert ask(op="count") == b"3"
    assert ask(op="delete", key="a") is not None
    assert ask(op="delete", key="a") is None
    with pytest.raises(ProtocolError, match="a number"):
        ask(op="add", key="c", value=b"1")
