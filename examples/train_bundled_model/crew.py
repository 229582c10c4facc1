"""Runs the workers of a step: processes of this program, one a core, or one for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from attention import plain_attention
from trainer import Stage, Trainer, device, workers


def run(work: Path, step: str) -> int:
    """Run a step by all workers and wait for them; returns how many there were.

    Raises RuntimeError when one of them fails; the others are ended then.
    """
    world = workers()
    command = [sys.executable, str(Path(__file__).parent), "--work", str(work), "--worker", step]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if world > 1 else None
    running = [
        subprocess.Popen([*command, str(rank), str(world)], env=environment)
        for rank in range(world)
    ]
    try:
        for rank, process in enumerate(running):
            if process.wait() != 0:
                raise RuntimeError(f"worker {rank} of {step} failed")
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return world


def settle(rank: int) -> None:
    """Make this process a worker: on a CPU, one core and one thread of its own."""
    torch.set_flush_denormal(True)
    if device().type == "cpu":
        torch.set_num_threads(1)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
        torch.nn.functional.scaled_dot_product_attention = plain_attention


def train(stage: Stage, folder: Path, rank: int, world: int, minutes: float) -> None:
    """This worker's part in the training of a stage."""
    store = dist.FileStore(str(folder / "workers"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    # All begin with the weights of the first; what they draw differs.
    torch.manual_seed(rank + 1)
    Trainer(stage, folder, rank, world).train(minutes)
    dist.destroy_process_group()
