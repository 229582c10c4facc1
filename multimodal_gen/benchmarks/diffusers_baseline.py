"""Runs stock diffusers in a separate process: `python -m …benchmarks.diffusers_baseline`.

Requests come on standard input and replies go to standard output, see `protocol`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import diffusers
import msgspec
import torch
import transformers

from multimodal_gen.benchmarks.protocol import Answer, BaselineReady, Load, Question, Ran, Run


def main() -> None:
    # Library output on stdout must not mix with the replies.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    pipeline: Any = None
    for line in sys.stdin.buffer:
        match msgspec.json.decode(line, type=Question):
            case Load() as load:
                pipeline = load_pipeline(load.folder, load.device, load.dtype)
                _answer(answers, BaselineReady(torch.get_num_threads(), _versions()))
            case Run() as run:
                _answer(answers, Ran(_timed(pipeline, run)))


def load_pipeline(folder: str, device: str, dtype: str) -> Any:
    """Load the checkpoint the way diffusers' users do."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    kind: Any = diffusers.DiffusionPipeline
    pipeline = kind.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def generate(pipeline: Any, run: Run) -> list[Any]:
    """Generate the images, each from its own seed."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in run.seeds]
    if run.as_batch:
        return list(pipeline(prompt=run.prompts, generator=generators, **run.settings)[0])
    return [
        pipeline(prompt=prompt, generator=generator, **run.settings)[0][0]
        for prompt, generator in zip(run.prompts, generators, strict=True)
    ]


def _timed(pipeline: Any, run: Run) -> float:
    started = time.perf_counter()
    generate(pipeline, run)  # ends with images on the host, so the device is done as well
    return time.perf_counter() - started


def _answer(answers: Any, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


def _versions() -> dict[str, str]:
    return {module.__name__: str(module.__version__) for module in (torch, diffusers, transformers)}


if __name__ == "__main__":
    main()
