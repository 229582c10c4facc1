"""Draws with weights in several forms on the pretended device.

Import it when the device is installed. `weights_on_device.py` is the command.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engineless import left, start
from pretend_device import PretendDevice
from quantized_weights import float8, mxfp8, nvfp4, rewrite
from tiny_checkpoints import build
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.pipelines.registry import load_pipeline

PARAMS = SamplingParams(prompt="a", width=64, height=64, num_inference_steps=2, seed=4)


def latents(folder: Path, device: PretendDevice | None) -> tuple[Tensor, Any]:
    """Latents, and what waited during the evaluations."""
    where = torch.device("cpu") if device is None else device.device
    pipeline = load_pipeline(folder, device=where, dtype=torch.float32, mesh=Mesh())
    state = start(pipeline, PARAMS)
    waits: dict[str, int] = {}
    while left(state):
        if device is None:
            pipeline.forward(Phase.DENOISE, [state], 1)
            continue
        with device.watching() as seen:
            pipeline.forward(Phase.DENOISE, [state], 1)
        waits |= seen.waits
    return state.latents.cpu(), waits


def seen() -> dict[str, Any]:
    """What waits, and how far the latents are from those of the same numbers on a CPU."""
    with tempfile.TemporaryDirectory() as parent:
        kept = build("flux-dev", Path(parent) / "kept")
        exact = Path(shutil.copytree(kept, Path(parent) / "exact"))
        forms = (partial(float8, block=(8, 8)), nvfp4, mxfp8, float8)
        rewrite(kept, "transformer", *forms, exact=exact)
        rewrite(kept, "text_encoder_2", *forms, exact=exact)
        with PretendDevice() as device:
            mine, waits = latents(kept, device)
        theirs, _ = latents(exact, None)
    apart = float((mine - theirs).norm() / theirs.norm())
    return {"waits": waits, "apart": apart}
