"""IP-Adapters make the same picture on ranks that share rows, tokens or heads as on one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controls import LoadedControls, edges
from engineless import load, run
from ip_adapters import write_adapter
from loras import LoadedLoras, diffusers_keys, random_lora, write
from rank_processes import run_ranks
from tiny_checkpoints import stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams

CALL: dict[str, Any] = {
    "prompt": "a pizza",
    "negative_prompt": "blurry",
    "seed": 1,
    "height": 48,
    "width": 80,
    "num_inference_steps": 2,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("plus", {"guidance_scale": 4.0}),
    "flux-dev": ("plain", {"true_cfg_scale": 3.0, "max_sequence_length": 32}),
}


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("flux-dev", ("cfg", "tensor")),
        pytest.param("flux-dev", ("ulysses", "ring"), marks=pytest.mark.slow),
        pytest.param("sd15", ("cfg",), marks=pytest.mark.slow),
    ],
)
def test_two_ranks_see_the_same_picture_as_one(
    checkpoints: Callable[..., Path], tmp_path: Path, name: str, axes: tuple[str, ...]
) -> None:
    adapter, own = CASES[name]
    folder = checkpoints(name, heads=3)
    stock, pipeline = stock_pipeline(folder), load(folder)
    (part, *_) = pipeline.components_of_kind(pipeline.denoiser_name)
    denoiser = getattr(stock, part)
    write_adapter(tmp_path / "controls" / "picture", denoiser, adapter)
    for lora, wanted in (("all", "attn"), ("few", "to_q")):
        keys = diffusers_keys(part, random_lora(denoiser, wanted))
        write(tmp_path / "loras" / f"{lora}.safetensors", keys)
    call = {**CALL, **own, "control": [{"name": "picture", "scale": 0.8}]}
    params, pictures = SamplingParams(**call), {"control_1": edges(40, 30)}
    made = run(
        pipeline,
        params,
        pictures,
        loras=[LoadedLoras(pipeline, tmp_path / "loras").use("all")],
        controls=LoadedControls(pipeline, tmp_path / "controls").uses(params.control),
    ).pixels
    np.save(tmp_path / "expected.npy", made)
    np.save(tmp_path / "control_1.npy", pictures["control_1"])
    case = {
        "folder": str(folder),
        "params": call,
        "pictures": {"control_1": str(tmp_path / "control_1.npy")},
        "loras": str(tmp_path / "loras"),
        "controls": str(tmp_path / "controls"),
        "patches": [],
        "expected": str(tmp_path / "expected.npy"),
    }
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps({name: case}))
    ways = [{axis: 2} for axis in axes]
    found = run_ranks("family_ranks.py", 2, tmp_path / "store", str(cases), json.dumps(ways))
    assert json.loads(found[0])[name] <= 1
