"""ControlNets of transformers steer on ranks that share rows, tokens or heads as on one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controls import LoadedControls, edges, save_random
from engineless import load, run
from loras import LoadedLoras, diffusers_keys, random_lora, write
from rank_processes import run_ranks
from tiny_checkpoints import stock_pipeline
from transformer_controls import networks_for

from multimodal_gen.configs.sampling_params import SamplingParams

CALL: dict[str, Any] = {
    "prompt": "a pizza",
    "negative_prompt": "blurry " * 3,
    "seed": 1,
    "height": 48,
    "width": 80,
    "num_inference_steps": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "flux-dev": {"true_cfg_scale": 3.0, "max_sequence_length": 32},
    "sd3": {"guidance_scale": 4.0, "max_sequence_length": 32},
    "qwenimage": {"true_cfg_scale": 3.0},
    "zimage": {"guidance_scale": 2.0},
}
NETWORKS = {
    "flux-dev": [{"name": "a", "scale": 0.8}, {"name": "b", "mode": "depth"}],
    "sd3": [{"name": "b", "scale": 0.8}, {"name": "c"}],
    "qwenimage": [{"name": "a", "scale": 0.8}],
    "zimage": [{"name": "a", "scale": 0.8}, {"name": "c"}],
}
WAYS = [{"cfg": 2}, {"ulysses": 2}, {"ring": 2}, {"tensor": 2}]


def _case(folder: Path, root: Path, name: str) -> dict[str, Any]:
    """A request with LoRAs and controls, and what one rank makes of it."""
    stock, pipeline = stock_pipeline(folder), load(folder)
    for each, net in networks_for(name, stock.transformer).items():
        save_random(net, root / "controls" / each)
    for lora, wanted in (("all", "att"), ("few", "to_q")):
        keys = diffusers_keys("transformer", random_lora(stock.transformer, wanted))
        write(root / "loras" / f"{lora}.safetensors", keys)
    call = {**CALL, **CASES[name], "control": NETWORKS[name]}
    params = SamplingParams(**call)
    pictures = {f"control_{n}": edges(40, 30, n) for n, _ in enumerate(NETWORKS[name], 1)}
    made = run(
        pipeline,
        params,
        pictures,
        loras=[LoadedLoras(pipeline, root / "loras").use("all")],
        controls=LoadedControls(pipeline, root / "controls").uses(params.control),
    ).pixels
    np.save(root / "expected.npy", made)
    for key, shown in pictures.items():
        np.save(root / f"{key}.npy", shown)
    return {
        "folder": str(folder),
        "params": call,
        "pictures": {key: str(root / f"{key}.npy") for key in pictures},
        "loras": str(root / "loras"),
        "controls": str(root / "controls"),
        "patches": [],
        "expected": str(root / "expected.npy"),
    }


@pytest.mark.slow
def test_two_ranks_make_what_one_makes(checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    cases = {name: _case(checkpoints(name, heads=3), tmp_path / name, name) for name in CASES}
    written = tmp_path / "cases.json"
    written.write_text(json.dumps(cases))
    found = run_ranks("family_ranks.py", 2, tmp_path / "store", str(written), json.dumps(WAYS))
    assert all(apart <= 1 for apart in json.loads(found[0]).values()), found[0]
