"""What each rank of a group does to show that every native family makes on it what it makes alone.

`python family_ranks.py RANK WORLD_SIZE STORE CASES WAYS`; CASES is a file in JSON: name -> folder,
parameters, pictures (.npy files), LoRAs, controls and the pixels that are expected. WAYS, a list in
JSON, are the sizes of meshes. Prints one JSON object: the name of each case -> how far its pixels
are apart at most, of 255, on any of them. Run by test_support.
"""

import json
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from controls import LoadedControls
from engineless import Pictures, finish, left, load, start
from loras import LoadedLoras
from rank_processes import say_and_leave
from tiny_checkpoints.case import patched

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.distributed.mesh import Mesh, init_process_group


def apart(mesh: Mesh, case: dict[str, Any]) -> int:
    """Of the case's request, in a batch with one of another text, seed and LoRA."""
    with patched(case["patches"]):
        return _apart(mesh, case)


def _apart(mesh: Mesh, case: dict[str, Any]) -> int:
    pipeline = load(Path(case["folder"]), mesh=mesh, quantization=case.get("quantization"))
    loras = LoadedLoras(pipeline, Path(case["loras"]))
    controls = LoadedControls(pipeline, Path(case["controls"])) if "controls" in case else None
    pictures: Pictures = {name: np.load(path) for name, path in case["pictures"].items()}
    other = {**case["params"], "prompt": "a dog that sleeps " * 4, "seed": 9}
    both = []
    for values, name in ((case["params"], "all"), (other, "few")):
        params = SamplingParams(**values)
        used = () if controls is None else controls.uses(params.control)
        both.append(start(pipeline, params, pictures, loras=[loras.use(name)], controls=used))
    keys = {pipeline.batch_key(state, state.evaluation) for state in both}
    batch = both if len(keys) == 1 else both[:1]
    while left(both[0]):
        pipeline.forward(Phase.DENOISE, batch, 1)
    if mesh.rank:
        return 0
    pixels = finish(pipeline, both[0]).pixels.astype(int)
    return int(np.abs(pixels - np.load(case["expected"])).max())


def main(rank: int, world_size: int, store: Path, cases: Path, ways: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = dist.FileStore(str(store), world_size)
    init_process_group(rank, world_size, kept, torch.device("cpu"), timedelta(seconds=120))
    meshes = [Mesh.create(rank, **way) for way in json.loads(ways)]
    found = {
        name: max(apart(mesh, case) for mesh in meshes)
        for name, case in json.loads(cases.read_text()).items()
    }
    say_and_leave(found)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
