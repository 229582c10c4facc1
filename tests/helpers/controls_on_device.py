"""Waits of evaluations under control on the pretended device; `python controls_on_device.py`.

Prints, in JSON, for each model and each evaluation of a batch of rows with different controls and
with none, its waits by place.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pretend_device

Wanted = Sequence[tuple[dict[str, Any], ...]]
"""Controls of each row."""
WANTED: dict[str, Wanted] = {
    "sdxl": [
        ({"name": "canny"}, {"name": "features", "scale": 0.5}),
        (),
        ({"name": "depth", "scale": 0.5, "stop": 0.5}, {"name": "likeness"}),
        ({"name": "union", "mode": "depth"}, {"name": "pooled"}),
    ],
    "flux-dev": [({"name": "a"},), (), ({"name": "b", "mode": "depth"}, {"name": "c"})],
    "sd3": [({"name": "a"},), (), ({"name": "b", "stop": 0.5}, {"name": "c"})],
    "qwenimage": [({"name": "a"},), (), ({"name": "b", "stop": 0.5},)],
    "zimage": [({"name": "a"},), (), ({"name": "b", "stop": 0.5}, {"name": "c"})],
}


def save_controls(name: str, folder: Path, root: Path) -> None:
    """Write controls for checkpoint `name`, which is made in `folder`."""
    from controls import networks, save_random
    from ip_adapters import write_adapter
    from tiny_checkpoints import build, stock_pipeline
    from transformer_controls import networks_for

    stock = stock_pipeline(build(name, folder / name))
    if name == "sdxl":
        write_adapter(root / "likeness", stock.unet, "plus")
        nets = networks(stock.unet)
    else:
        nets = networks_for(name, stock.transformer)
    for each, net in nets.items():
        save_random(net, root / each)


def watched(name: str, wanted: Wanted) -> list[dict[str, int]]:
    from controls import LoadedControls, edges
    from device_cases import REQUEST, loaded
    from engineless import start

    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.plan import Phase

    waits = []
    with tempfile.TemporaryDirectory() as folder, loaded(name) as (device, pipeline):
        root = Path(folder) / "controls"
        save_controls(name, Path(folder), root)
        controls, states = LoadedControls(pipeline, root), []
        for number, chosen in enumerate(wanted):
            params = SamplingParams(**{**REQUEST, "seed": number}, control=chosen)
            pictures = {f"control_{place}": edges(64, 64) for place, _ in enumerate(chosen, 1)}
            uses = controls.uses(params.control)
            states.append(start(pipeline, params, pictures, controls=uses, name=str(number)))
        for _ in range(REQUEST["num_inference_steps"]):
            with device.watching() as seen:
                pipeline.forward(Phase.DENOISE, states, 1)
            waits.append(dict(seen.waits))
    return waits


if __name__ == "__main__":
    pretend_device.install()
    print(json.dumps({name: watched(name, wanted) for name, wanted in WANTED.items()}))
