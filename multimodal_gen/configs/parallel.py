"""Distribution of one step's work over the ranks."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True)
class ParallelConfig:
    """Number of ranks on each axis of the mesh.

    `cfg` groups share the rows of a batch; in each, `ring` times `ulysses` groups share a sequence;
    in each of those, `tensor` ranks share the layers' heads and features.
    """

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    tensor: int = 1

    @classmethod
    def choose(cls, args: EngineArgs, *, ulysses_supported: bool) -> ParallelConfig:
        """Split `num_gpus` as requested; by default the ranks of a native model share the sequence.

        Raises InvalidRequest if a split is requested that the model does not support.
        """
        asked = {"ulysses": args.ulysses_degree, "ring": args.ring_degree}
        asked["tensor"] = args.tensor_degree
        if not ulysses_supported:
            for axis, degree in asked.items():
                if degree is not None and degree > 1:
                    allowed = "must be 1 or left out: this model's denoiser can't be split"
                    raise InvalidRequest(f"{axis}_degree", degree, allowed)
            return cls(cfg=args.num_gpus)
        ring, tensor = asked["ring"] or 1, asked["tensor"] or 1
        groups = args.num_gpus // (ring * tensor)
        ulysses = asked["ulysses"]
        if ulysses is None:
            ulysses = groups // 2 if args.enable_cfg_parallel else groups
        return cls(cfg=groups // ulysses, ring=ring, ulysses=ulysses, tensor=tensor)
