"""Ranks that share the rows of a batch share those of each evaluation, which are not always as
many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run
from loras import LoadedLoras, diffusers_keys, random_lora, write
from rank_processes import run_ranks
from tiny_checkpoints import stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams

CALL: dict[str, Any] = {
    "prompt": "a pizza",
    "negative_prompt": "blurry",
    "true_cfg_scale": 3.0,
    "max_sequence_length": 32,
    "seed": 1,
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "interval": {"guidance_start": 0.25, "guidance_stop": 0.75},
    "steps without rows": {"guidance_method": "cfg_zero", "zero_init_steps": 2},
    "momentum": {"guidance_method": "apg", "apg_norm": 5.0, "guidance_start": 0.25},
}
WAYS = [{"cfg": 2}, {"ulysses": 2}]


@pytest.mark.slow
def test_two_ranks_guide_as_one_does(checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoints("flux-dev")
    pipeline, cases = load(folder), {}
    for lora, wanted in (("all", "att"), ("few", "to_q")):
        weights = random_lora(stock_pipeline(folder).transformer, wanted)
        write(tmp_path / "loras" / f"{lora}.safetensors", diffusers_keys("transformer", weights))
    use = LoadedLoras(pipeline, tmp_path / "loras").use("all")
    for name, change in CASES.items():
        made = run(pipeline, SamplingParams(**CALL, **change), loras=[use])
        np.save(tmp_path / f"{name}.npy", made.pixels)
        cases[name] = {
            "folder": str(folder),
            "params": {**CALL, **change},
            "pictures": {},
            "loras": str(tmp_path / "loras"),
            "patches": [],
            "expected": str(tmp_path / f"{name}.npy"),
        }
    written = tmp_path / "cases.json"
    written.write_text(json.dumps(cases))
    found = run_ranks("family_ranks.py", 2, tmp_path / "store", str(written), json.dumps(WAYS))
    assert all(apart <= 1 for apart in json.loads(found[0]).values()), found[0]
