"""`python -m multimodal_gen.benchmarks.parallel`: evaluations of real sizes on eight H200 GPUs, as
projected from what one rank computes and exchanges. No GPU and no weights are needed."""

from __future__ import annotations

import sys

from multimodal_gen.benchmarks.parallel.projected_models import PROJECTED_MODELS
from multimodal_gen.benchmarks.parallel.projection import (
    HEADER,
    RANKS,
    described,
    products_of,
    project,
)
from multimodal_gen.benchmarks.parallel.work import pretended_ranks


def main(names: list[str]) -> int:
    with pretended_ranks(RANKS):
        for name in names or PROJECTED_MODELS:
            model = PROJECTED_MODELS[name]
            print(f"{model.title}: {model.rows} x {model.tokens} tokens\n{HEADER}")
            for each in project(model, [*products_of(RANKS, model.rows)]):
                print(described(each), flush=True)
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
