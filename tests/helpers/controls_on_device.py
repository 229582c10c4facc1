"""Waits of evaluations under control on the pretended device; `python controls_on_device.py`.

Prints, in JSON, for each evaluation of a batch of rows with different controls and with none, its
waits by place.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pretend_device


def watched() -> list[dict[str, int]]:
    from controls import LoadedControls, edges, networks, save_random
    from device_cases import REQUEST, loaded
    from engineless import start
    from ip_adapters import write_adapter
    from tiny_checkpoints import build, stock_pipeline

    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.plan import Phase

    wanted: list[tuple[dict[str, Any], ...]] = [
        ({"name": "canny"}, {"name": "features", "scale": 0.5}),
        (),
        ({"name": "depth", "scale": 0.5, "stop": 0.5}, {"name": "likeness"}),
        ({"name": "union", "mode": "depth"}, {"name": "pooled"}),
    ]
    waits = []
    with tempfile.TemporaryDirectory() as folder, loaded("sdxl") as (device, pipeline):
        root = Path(folder) / "controls"
        unet = stock_pipeline(build("sdxl", Path(folder) / "sdxl")).unet
        for name, net in networks(unet).items():
            save_random(net, root / name)
        write_adapter(root / "likeness", unet, "plus")
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
    print(json.dumps(watched()))
