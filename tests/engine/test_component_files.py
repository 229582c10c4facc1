"""Components in separate files, and those that a single file has besides its denoiser."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from denoisers import differences
from original_vaes import ORIGINAL_VAES
from single_files import prefixed, weights, write

from multimodal_gen.runtime.loader.checkpoint import Checkpoint

Checkpoints = Callable[..., Path]


def component(
    folder: Path, name: str, file: Path | None = None, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    checkpoint = Checkpoint.open(folder, None, {name: file} if file else None)
    module = checkpoint.load(name, dtype, torch.device("cpu"))
    assert isinstance(module, torch.nn.Module)
    return module


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
@pytest.mark.parametrize("name", ORIGINAL_VAES)
def test_a_vae_under_its_authors_names_is_the_folders(
    name: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "vae.sft", prefixed(ORIGINAL_VAES[name](folder), prefix))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


@pytest.mark.parametrize("name", ORIGINAL_VAES)
def test_a_vae_under_diffusers_names_is_the_folders(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "vae.safetensors", weights(folder, "vae"))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


def test_a_counter_of_training_may_be_missing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("flux2-klein")
    tensors = weights(folder, "vae")
    del tensors["bn.num_batches_tracked"]
    file = write(tmp_path / "vae.safetensors", tensors)
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []
