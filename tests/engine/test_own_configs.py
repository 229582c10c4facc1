"""What a file says of its component counts, not what the folder says that completes it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from denoisers import differences, load_denoiser
from original_vaes import ORIGINAL_VAES
from safetensors.torch import save_file
from single_files import COMFY, Tensors, ltx, prefixed, weights, write

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.checkpoint import Checkpoint

Checkpoints = Callable[..., Path]


def stating(path: Path, tensors: Tensors, stated: object) -> Path:
    """A file with a config in its metadata, as Lightricks writes it."""
    config = stated if isinstance(stated, str) else json.dumps(stated)
    save_file({key: t.contiguous() for key, t in tensors.items()}, path, {"config": config})
    return path


def test_a_transformer_of_another_size_brings_its_own(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    base, other = checkpoints("ltx"), checkpoints("ltx", transformer={"num_layers": 3})
    stated = {"transformer": {"num_layers": 3, "_class_name": "Transformer3DModel"}}
    file = stating(tmp_path / "ltx.safetensors", ltx(other), stated)
    assert differences(load_denoiser(base, file), load_denoiser(other)) == []


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"transformer": {"num_layers": 10**9}}, "num_layers=1000000000 must be 0 to 1000"),
        ({"transformer": {"num_layers": "many"}}, "num_layers"),
        ({"transformer": {"num_layers": [1]}}, "num_layers"),
        ({"transformer": {"attention_head_dim": 2**40}}, "attention_head_dim"),
    ],
)
def test_a_config_that_can_not_be_is_refused(
    stated: object, said: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("ltx")
    file = stating(tmp_path / "ltx.safetensors", ltx(folder), stated)
    with pytest.raises(InvalidCheckpoint, match=said):
        load_denoiser(folder, file)


@pytest.mark.parametrize("stated", ["{", "[]", "[" * 10_000, '{"transformer": [], "vae": 7}'])
def test_a_config_that_says_nothing_is_passed_over(
    stated: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("ltx")
    file = stating(tmp_path / "ltx.safetensors", ltx(folder), stated)
    assert differences(load_denoiser(folder, file), load_denoiser(folder)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {k: t for k, t in tensors.items() if "decoder.up_blocks" not in k},
        lambda tensors: {k: t for k, t in tensors.items() if "encoder.conv_in" not in k},
        lambda tensors: {**tensors, "encoder.down_blocks.99.res_blocks.0.x": torch.ones(1)},
        lambda tensors: {k: t[:0] if "up_blocks.2" in k else t for k, t in tensors.items()},
    ],
)
def test_blocks_that_make_no_vae_are_refused(
    change: Callable[[Tensors], Tensors], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("ltx")
    file = write(tmp_path / "vae.safetensors", change(ORIGINAL_VAES["ltx"](folder)))
    with pytest.raises(InvalidCheckpoint, match=r"vae\.safetensors"):
        load_vae(folder, file)


def load_vae(folder: Path, file: Path) -> object:
    checkpoint = Checkpoint.open(folder, None, {"vae": file})
    return checkpoint.load("vae", torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("prefix", ["", COMFY])
def test_a_marked_qwen_image_edit_is_told_no_noise_in_its_pictures(
    prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("qwenimage-edit")
    plain = prefixed(weights(folder), prefix)
    marked = plain | {f"{prefix}__index_timestep_zero__": torch.zeros(())}
    for tensors, expected in ((plain, False), (marked, True)):
        file = write(tmp_path / "edit.safetensors", tensors)
        opened = Checkpoint.open(folder, file)
        assert opened.config("transformer").get("zero_cond_t", False) is expected
        assert opened.unused == ()
        assert identify(file).warnings == ()
        assert differences(load_denoiser(folder, file), load_denoiser(folder)) == []
