"""A prompt enhancer whose weights are not all on the pretended device; `python
enhancer_on_device.py` prints what was seen, by residency, as a JSON object."""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pretend_device
from residency_cases import loaded, working_memory

PROMPT = "a red cat"


def main() -> None:
    from tiny_checkpoints import build
    from tiny_enhancers import qwen3_folder

    with tempfile.TemporaryDirectory() as parent:
        folder = build("sd15", Path(parent) / "sd15")
        enhancer = qwen3_folder(Path(parent) / "enhancer")
        whole = seen_of(folder, enhancer, "device", 1e9)
        less = whole["bytes"] - whole["encoder bytes"] - 1
        others = {each: seen_of(folder, enhancer, each, less) for each in ("host", "streamed")}
        print(json.dumps({"device": whole, **others}))


def seen_of(folder: Path, enhancer: Path, residency: str, budget: float) -> dict[str, Any]:
    import torch

    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.request import Req
    from multimodal_gen.runtime.enhancer.enhancer import ENHANCER
    from multimodal_gen.runtime.stages.request_state import RequestState

    options: dict[str, Any] = {"prompt_enhancer": enhancer, "residency": residency}
    with working_memory(1), loaded(folder, budget, **options) as (_, pipeline):
        plan = pipeline.residency.plan
        state = RequestState.of(Req(id="a", params=SamplingParams(prompt=PROMPT, seed=1)))
        hold, text = partial(pipeline.residency.hold, (ENHANCER,)), None
        with torch.inference_mode():
            while text is None:
                _, text = pipeline.enhancer.enhance(state, 8, hold)
        return {
            "encoder bytes": plan["text_encoder"].size,
            "bytes": plan.needed,
            "mode": plan[ENHANCER].mode,
            "text": text,
            "switches": sorted({each.after.value for each in plan.switches()}),
        }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    pretend_device.install()
    main()
