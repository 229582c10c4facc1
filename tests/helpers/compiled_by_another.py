"""Has the blocks of a model compiled by another process, and prints how its graphs were loaded, and
by how much their results differ.

It is a process of its own as torch reads its environment once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from queue import SimpleQueue

from engineless import load, start
from torch._dynamo.utils import counters

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase, RunnerReady
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.managers.graph_maker import GraphMaker


def main(folder: str) -> None:
    pipeline = load(Path(folder))
    maker = GraphMaker.of(pipeline, _args(folder))
    assert maker is not None
    params = SamplingParams(prompt="a heart", seed=1, num_inference_steps=4)
    eager, compiled = start(pipeline, params), start(pipeline, params)
    pipeline.forward(Phase.DENOISE, [eager], 4)
    counters.clear()
    woken, told = SimpleQueue[None](), list[RunnerReady]()
    maker.start(lambda: woken.put(None), told.append)
    maker.advance()
    while not told and not maker.is_over:
        woken.get(timeout=900)
        maker.advance()
    compiled.runner = "compiled"
    pipeline.forward(Phase.DENOISE, [compiled], 4)
    one, other = eager.running()[1], compiled.running()[1]
    found = counters["inductor"]
    seen = {
        "hits": found["fxgraph_cache_hit"],
        "misses": found["fxgraph_cache_miss"],
        "difference": float((one - other).abs().max() / one.abs().max()),
    }
    print(json.dumps(seen))


def _args(folder: str) -> RankArgs:
    return RankArgs(
        rank=0,
        engine=EngineArgs(compile="blocks"),
        ranks_address="",
        socket_folder="",
        model_folder=folder,
        model_name="bundled",
    )


if __name__ == "__main__":
    main(sys.argv[1])
