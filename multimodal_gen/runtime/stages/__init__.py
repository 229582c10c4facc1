"""The stages of a generation, by phase."""

from __future__ import annotations

from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.stages.decode import DecodeStage
from multimodal_gen.runtime.stages.denoise import DenoiseStage
from multimodal_gen.runtime.stages.encode import EncodeStage
from multimodal_gen.runtime.stages.prepare import PrepareStage
from multimodal_gen.runtime.stages.second_pass import (
    ExpectEnlargement,
    ExpectSecondPass,
    StartNextPass,
)
from multimodal_gen.runtime.stages.stage import Pipeline, Stage


def make_stages(pipeline: Pipeline) -> dict[Phase, tuple[Stage, ...]]:
    """Create the stages that this rank runs: only rank 0 has the pixels in the end."""
    is_output_rank = pipeline.context.mesh.rank == 0
    encode = EncodeStage(pipeline)
    prepare = PrepareStage(pipeline, is_output_rank=is_output_rank)
    decode = DecodeStage(pipeline, is_output_rank=is_output_rank)
    return {
        Phase.ENCODE: (
            ExpectEnlargement(pipeline),
            encode,
            prepare,
            ExpectSecondPass(pipeline, encode),
        ),
        Phase.DENOISE: (DenoiseStage(pipeline, is_output_rank=is_output_rank),),
        Phase.DECODE: (decode, StartNextPass(pipeline, prepare)),
    }
