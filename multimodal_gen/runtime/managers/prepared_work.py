"""Describes the work that a request has before it, once it is encoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from multimodal_gen.messages.plan import (
    BatchKey,
    EnlargingWork,
    EvaluationRun,
    Prepared,
    SecondPass,
)
from multimodal_gen.messages.reply import Usage
from multimodal_gen.runtime.models.upscaler import TILE, Enlargement
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.decode import decode_units
from multimodal_gen.runtime.stages.request_state import RequestState


def prepared_of(pipeline: ComposedPipeline, state: RequestState) -> Prepared:
    """Describe the work of a prepared request."""
    passes = [each for each in state.passes if each.enlargement is None]
    runs = [[*_runs(pipeline, each)] for each in passes]
    second = passes[1] if len(passes) > 1 else None
    all_steps = second is None and state.evaluation == 0
    steps = sum(map(_megapixel_steps, passes, runs))
    return Prepared(
        batch_keys=tuple(run for each in runs for run in each),
        decode_chunks=decode_units(pipeline, state),
        extrapolated=sum(each.extrapolated for each in passes),
        second=None
        if second is None
        else SecondPass(second.evaluations_left, pipeline.decode_chunks(second.params)),
        enlarging=next((_enlarging(e) for p in state.passes if (e := p.enlargement)), None),
        steps=None if all_steps else sum(each.steps_left for each in passes),
        warnings=tuple(state.warnings),
        prompt_notes=tuple(state.prompt_notes),
        usage=Usage(state.prompt_tokens, round(steps, 6)),
    )


def _runs(pipeline: ComposedPipeline, state: RequestState) -> Iterator[EvaluationRun]:
    """Evaluations of a pass: those of one batch key, and of as many rows, are a run."""
    first = state.evaluation
    alike = itertools.groupby(
        (pipeline.batch_key(state, i), state.planned_rows(i))
        for i in range(first, first + state.evaluations_left)
    )
    return (EvaluationRun(key, len(list(run)), rows) for (key, rows), run in alike)


def _megapixel_steps(state: RequestState, runs: list[EvaluationRun]) -> float:
    """Megapixels of a pass's output, times its evaluations that run the denoiser."""
    height, width = state.size
    computed = sum(run.count for run in runs if run.rows)
    return width * height * (state.params.num_frames or 1) / 1e6 * computed


def _enlarging(enlargement: Enlargement) -> EnlargingWork:
    _, height, width = enlargement.grid.shape
    tokens = min(height, TILE) * min(width, TILE) // 256
    key = BatchKey(max(1, tokens), f"upscaler {enlargement.upscaler.name}")
    return EnlargingWork(enlargement.units, key)
