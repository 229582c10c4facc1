"""What each rank of a group does to show that every native family makes on it what it makes alone.

`python family_ranks.py RANK WORLD_SIZE STORE CASES`; CASES is a file in JSON: name -> folder,
parameters, pictures (.npy files) and the pixels that are expected. Prints one JSON object: the
name of each case -> how far its pixels are apart at most, of 255, in any of the WAYS. Run by
test_support.
"""

import json
import sys
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from engineless import Pictures, finish, left, start
from rank_processes import say_and_leave

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.distributed.mesh import Mesh, init_process_group
from multimodal_gen.runtime.pipelines.registry import load_pipeline

WAYS: Mapping[int, list[dict[str, int]]] = {
    2: [{"ulysses": 2}, {"tensor": 2}, {"ring": 2}],
    4: [
        {"cfg": 2, "ulysses": 2},
        {"cfg": 2, "tensor": 2},
        {"ulysses": 2, "tensor": 2},
        {"tensor": 4},
        {"cfg": 2, "ring": 2},
        {"ring": 2, "ulysses": 2},
        {"ring": 4},
    ],
}
"""Ways in which so many ranks share the work."""


def apart(mesh: Mesh, case: dict[str, Any]) -> int:
    """Of the case's request, in a batch with one of another text and seed."""
    pipeline = load_pipeline(
        Path(case["folder"]), device=torch.device("cpu"), dtype=torch.float32, mesh=mesh
    )
    pictures: Pictures = {name: np.load(path) for name, path in case["pictures"].items()}
    other = {**case["params"], "prompt": "a dog that sleeps " * 4, "seed": 9}
    both = [start(pipeline, SamplingParams(**each), pictures) for each in (case["params"], other)]
    keys = {pipeline.batch_key(state, state.evaluation) for state in both}
    batch = both if len(keys) == 1 else both[:1]
    while left(both[0]):
        pipeline.forward(Phase.DENOISE, batch, 1)
    if mesh.rank:
        return 0
    pixels = finish(pipeline, both[0]).pixels.astype(int)
    return int(np.abs(pixels - np.load(case["expected"])).max())


def main(rank: int, world_size: int, store: Path, cases: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = dist.FileStore(str(store), world_size)
    init_process_group(rank, world_size, kept, torch.device("cpu"), timedelta(seconds=120))
    meshes = [Mesh.create(rank, **way) for way in WAYS[world_size]]
    found = {
        name: max(apart(mesh, case) for mesh in meshes)
        for name, case in json.loads(cases.read_text()).items()
    }
    say_and_leave(found)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
