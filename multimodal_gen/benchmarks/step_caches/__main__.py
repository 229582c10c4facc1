"""Calibrates the step caches of a model: `quality` high and fast.

    python -m multimodal_gen.benchmarks.step_caches MODEL_FOLDER [PROMPTS]

PROMPTS is a file with a prompt a line; by default, the prompts beside this module. Rules are
searched for on the first of them, and measured on the others. Prints the contents of a
step_caches.json, which belongs into the model's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from multimodal_gen.benchmarks.step_caches.search import cheapest
from multimodal_gen.benchmarks.step_caches.trials import Closeness, Trials
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.rank_args import RankPlace
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.managers.rank_device import choose_device, choose_dtype
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline

PROMPTS = Path(__file__).with_name("prompts.txt")
BARS = {"high": Closeness(45, 37), "fast": Closeness(40, 30)}
_MARGIN = Closeness(3, 6)
"""By which rules must be better than the bar, in dB: other prompts and seeds will differ."""
_SEARCHED = 16
"""Prompts on which rules are searched for."""


def main(folder: str, prompts: str = str(PROMPTS)) -> int:
    lines = [line for line in Path(prompts).read_text(encoding="utf-8").splitlines() if line]
    pipeline = _loaded(Path(folder))
    searched = _trials(pipeline, lines[:_SEARCHED], 0)
    others = _trials(pipeline, lines[_SEARCHED:], len(lines))
    bars = [Closeness(bar.mean + _MARGIN.mean, bar.worst + _MARGIN.worst) for bar in BARS.values()]
    reached = cheapest(searched.closeness, pipeline.defaults.num_inference_steps, bars)
    found = {}
    for quality, rule in zip(BARS, reached, strict=True):
        if rule is None:
            print(f"{quality}: no rule is close enough", file=sys.stderr)
            continue
        mean, worst = others.closeness(rule[0])
        found[quality] = replace(rule[0], psnr=(round(mean, 1), round(worst, 1)))
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    return 0


def _loaded(folder: Path) -> ComposedPipeline:
    args = EngineArgs(model_path=str(folder))
    device = choose_device(args, RankPlace())
    return load_pipeline(folder, device=device, dtype=choose_dtype(args, device), mesh=Mesh())


def _trials(pipeline: ComposedPipeline, prompts: Sequence[str], first_seed: int) -> Trials:
    model = pipeline.model_info("model")
    return Trials(
        pipeline,
        [
            resolve(SamplingParams(prompt=prompt, seed=first_seed + i), model)
            for i, prompt in enumerate(prompts)
        ],
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
