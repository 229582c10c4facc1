"""Runs a rank; the one that RANK_THAT_FAILS says can't load its model."""

import os

from multimodal_gen.runtime import rank
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker

plain_load = GPUWorker.load


def load(args, *ways):
    if args.rank == int(os.environ["RANK_THAT_FAILS"]):
        raise RuntimeError("a planted fault")
    return plain_load(args, *ways)


if __name__ == "__main__":
    GPUWorker.load = load
    rank.main()
