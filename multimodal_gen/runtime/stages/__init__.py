"""The stages of a generation, by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.executor import Stage
from multimodal_gen.runtime.stages.decode import DecodeStage
from multimodal_gen.runtime.stages.denoise import DenoiseStage
from multimodal_gen.runtime.stages.encode import EncodeStage
from multimodal_gen.runtime.stages.prepare import PrepareStage

if TYPE_CHECKING:
    from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


def make_stages(pipeline: ComposedPipeline) -> dict[Phase, tuple[Stage, ...]]:
    """The stages that this rank runs: pixels are made on rank 0 only."""
    shows = pipeline.context.mesh.rank == 0
    return {
        Phase.ENCODE: (EncodeStage(pipeline), PrepareStage(pipeline, previews=shows)),
        Phase.DENOISE: (DenoiseStage(pipeline),),
        Phase.DECODE: (DecodeStage(pipeline),) if shows else (),
    }
