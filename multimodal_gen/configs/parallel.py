"""Distribution of one step's work over the ranks."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True)
class ParallelConfig:
    """`cfg` groups of ranks share the rows of a batch; in each `ulysses` ranks share a sequence."""

    cfg: int = 1
    ulysses: int = 1

    @classmethod
    def choose(cls, args: EngineArgs, *, ulysses_supported: bool) -> ParallelConfig:
        """Split `num_gpus` as requested; by default the ranks of a native model share the sequence.

        Raises InvalidRequest if a sequence split is requested and the model does not support it.
        """
        ranks, degree = args.num_gpus, args.ulysses_degree
        if not ulysses_supported:
            if degree is not None and degree > 1:
                allowed = "must be 1 or left out: this model's denoiser can't split a sequence"
                raise InvalidRequest("ulysses_degree", degree, allowed)
            degree = 1
        if degree is None:
            degree = ranks // 2 if args.enable_cfg_parallel else ranks
        return cls(cfg=ranks // degree, ulysses=degree)
