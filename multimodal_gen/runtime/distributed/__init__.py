"""Ranks that share one evaluation: the mesh, and the collectives that the layers use."""

from multimodal_gen.runtime.distributed.mesh import Mesh, close_process_group, init_process_group
from multimodal_gen.runtime.distributed.rows import deal, gather_rows
from multimodal_gen.runtime.distributed.ulysses import SequenceParallel, make_sequence_parallel

__all__ = [
    "Mesh",
    "SequenceParallel",
    "close_process_group",
    "deal",
    "gather_rows",
    "init_process_group",
    "make_sequence_parallel",
]
