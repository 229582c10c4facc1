"""Classifier-free guidance of models that also take a guidance scale as an input."""

from __future__ import annotations

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


class TrueCfgPipeline(ComposedPipeline):
    """Guided by `true_cfg_scale`, and only where a negative prompt is given, as the references of
    these families are."""

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        return ("positive",) if params.negative_prompt is None else super().branches(params)

    def cfg_scale(self, params: SamplingParams) -> float:
        return 1.0 if params.true_cfg_scale is None else params.true_cfg_scale
