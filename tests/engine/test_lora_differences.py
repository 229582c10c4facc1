"""Differences of whole weights, biases, norms and tables: what W + scale * D gives, row by row."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import Output, finish, left, load, run, start
from loras import LoadedLoras, write
from safetensors.torch import load_file, save_file
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.loader.lora.targets import targets_in
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 64,
    "num_inference_steps": 2,
}
VIDEO = {"num_frames": 5, "guidance_scale": 5.0, "negative_prompt": "", "max_sequence_length": 32}
CASES: dict[str, dict[str, Any]] = {
    "flux-dev": {},
    "flux2-klein": {},
    "chroma": {"max_sequence_length": 32},
    "sd15": {},
    "sd35": {},
    "wan": VIDEO,
    "wan-vace": VIDEO,
    "qwenimage": {"true_cfg_scale": 2.0, "negative_prompt": " "},
    "zimage": {"guidance_scale": 3.0},
    "ltx": {"num_frames": 9, "height": 64, "max_sequence_length": 32},
}
SCALE = 0.6


@dataclass
class Model:
    name: str
    folder: Path
    pipeline: ComposedPipeline
    differences: dict[str, Tensor]
    """By diffusers' name of the tensor."""
    loras: LoadedLoras

    def params(self, seed: int = 0) -> SamplingParams:
        return SamplingParams(**{**CALL, **CASES[self.name]}, seed=seed)


def denoiser_file(folder: Path) -> Path:
    (file,) = [*folder.glob("transformer/*.safetensors"), *folder.glob("unet/*.safetensors")]
    return file


@pytest.fixture(scope="module", params=CASES)
def model(
    request: pytest.FixtureRequest,
    checkpoints: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Model:
    folder, root = checkpoints(request.param), tmp_path_factory.mktemp("loras")
    pipeline = load(folder)
    targets = dict(targets_in(pipeline.denoiser_module))
    generator = torch.Generator().manual_seed(1)
    differences, keys = {}, {}
    for name, tensor in load_file(denoiser_file(folder)).items():
        module, _, kind = name.rpartition(".")
        module, kind = (name, "weight") if name in targets else (module, kind)
        if module in targets:
            size = 0.2 * tensor.std() if tensor.numel() > 1 and tensor.std() else 0.1
            change = size * torch.randn(tensor.shape, generator=generator)
            differences[name] = change
            keys[f"diffusion_model.{module}.{'diff_b' if kind == 'bias' else 'diff'}"] = change
    write(root / "d.safetensors", keys)
    return Model(request.param, folder, pipeline, differences, LoadedLoras(pipeline, root))


@pytest.fixture
def changed(model: Model, tmp_path: Path) -> ComposedPipeline:
    """The model with the differences in its weights."""
    folder = shutil.copytree(model.folder, tmp_path / "changed")
    file = denoiser_file(folder)
    tensors = load_file(file)
    for name, change in model.differences.items():
        tensors[name] = tensors[name] + SCALE * change
    save_file(tensors, file, metadata={"format": "pt"})
    return load(folder)


def close(ours: Output, theirs: Output) -> None:
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=2e-4, atol=2e-4)


def test_differences_of_all_weights_do_what_weights_with_them_do(
    model: Model, changed: ComposedPipeline
) -> None:
    theirs = run(changed, model.params())
    close(run(model.pipeline, model.params(), loras=[model.loras.use("d", SCALE)]), theirs)
    assert (run(model.pipeline, model.params()).latents - theirs.latents).abs().max() > 0.01


def test_rows_with_and_without_differences_share_a_batch(model: Model) -> None:
    uses = [[model.loras.use("d", SCALE)], [], [model.loras.use("d", -0.3)]]
    params = [model.params(seed) for seed in range(len(uses))]
    states = [
        start(model.pipeline, one, loras=of_row) for one, of_row in zip(params, uses, strict=True)
    ]
    assert len({model.pipeline.batch_key(state, 0) for state in states}) == 1
    model.pipeline.forward(Phase.DENOISE, states, left(states[0]))
    for state, one, of_row in zip(states, params, uses, strict=True):
        close(finish(model.pipeline, state), run(model.pipeline, one, loras=of_row))
