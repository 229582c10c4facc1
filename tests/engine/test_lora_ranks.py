"""LoRAs in an engine of several ranks, which share rows and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import load, run
from engines import start_engine, submit_to
from loras import LoadedLoras, diffusers_keys, random_lora, write
from tiny_checkpoints import stock_pipeline
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a pizza",
    "seed": 1,
    "height": 48,
    "width": 80,
    "num_inference_steps": 3,
    "max_sequence_length": 32,
}
GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": "blurry"}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("flux-dev")


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs a, b, c, and one that doesn't fit."""
    root = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate("abc"):
        put(root, name, folder, seed)
    write(root / "odd.safetensors", {"transformer.other.lora_A.weight": torch.zeros(4, 8)})
    return root


def put(root: Path, name: str, folder: Path, seed: int) -> None:
    stock = stock_pipeline(folder)
    keys = diffusers_keys("transformer", random_lora(stock.transformer, "attn ff", seed=seed))
    encoder = random_lora(stock.text_encoder, "q_proj", seed=seed)
    write(root / f"{name}.safetensors", keys | diffusers_keys("text_encoder", encoder))


@pytest.fixture(scope="module")
def ranks(folder: Path, root: Path) -> Iterator[EngineProcess]:
    options = {"num_gpus": 4, "enable_cfg_parallel": True, "max_loaded_loras": 2}
    with start_engine(model_path=str(folder), lora_dir=str(root), **options) as engine:
        yield engine


def alone(pipeline: ComposedPipeline, root: Path, **change: Any) -> Any:
    params = SamplingParams(**{**CALL, **change})
    loaded = LoadedLoras(pipeline, root)
    uses = [loaded.use(choice.name, choice.scale) for choice in params.lora]
    return run(pipeline, params, loras=uses).pixels.astype(int)


def test_loras_do_on_several_ranks_what_they_do_on_one(
    ranks: EngineProcess, folder: Path, root: Path
) -> None:
    pipeline = load(folder)
    wanted: list[dict[str, Any]] = [
        {"lora": ["a:0.7"], **GUIDED},
        {"seed": 2},
        {"lora": ["b", "a:-0.5"]},
        {"lora": ["c"], **GUIDED},  # finds room when the others are done
    ]
    together = [submit_to(ranks, **{**CALL, **params}) for params in wanted]
    for handle, params in zip(together, wanted, strict=True):
        difference = handle.result(300).pixels.astype(int) - alone(pipeline, root, **params)
        assert np.abs(difference).max() <= 1


def test_a_lora_that_does_not_fit_leaves_its_neighbours_alone(ranks: EngineProcess) -> None:
    odd = submit_to(ranks, **CALL, lora="odd")
    neighbour = submit_to(ranks, **CALL, lora="a")
    with pytest.raises(InvalidRequest, match=r"transformer\.other.*no such module"):
        odd.result(300)
    neighbour.result(300)


def test_what_of_a_lora_has_no_effect_is_in_the_result(
    ranks: EngineProcess, folder: Path, root: Path
) -> None:
    stock = stock_pipeline(folder)
    keys = diffusers_keys("transformer", random_lora(stock.transformer, "attn.to_q"))
    write(root / "bundle.safetensors", {**keys, "bundle_emb.thing.clip_l": torch.ones(2, 8)})
    both = submit_to(ranks, **CALL, lora=["bundle:0.5", "a"]).result(300)
    assert [warning.split(":")[0] for warning in texts(both.warnings)] == ["lora='bundle'"]
    assert submit_to(ranks, **CALL, lora="a").result(300).warnings == ()


def test_a_lora_that_was_overwritten_is_read_again(
    ranks: EngineProcess, folder: Path, root: Path
) -> None:
    before = submit_to(ranks, **CALL, lora="b").result(300).pixels
    put(root, "b", folder, seed=7)
    after = submit_to(ranks, **CALL, lora="b").result(300).pixels.astype(int)
    assert np.abs(after - before).max() > 1
    assert np.abs(after - alone(load(folder), root, lora="b")).max() <= 1
