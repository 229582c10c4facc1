"""Loads the pipeline of a folder's family."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from multimodal_gen.configs.arguments.engine_args import ResidencyChoice
from multimodal_gen.configs.families import family_named
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.pictures import placeholder_inputs
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.enhancer.enhancer import ENHANCER
from multimodal_gen.runtime.enhancer.folder import EnhancerFolder
from multimodal_gen.runtime.layers.products.dense import pack_weights
from multimodal_gen.runtime.layers.quantized.unpacking import unpacking_warnings
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.loading_meter import LoadingMeter
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.loader.tensors.when_loaded import without_effect
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.placement import MemoryBudget, place
from multimodal_gen.runtime.residency.decoding_room import decoding_room
from multimodal_gen.runtime.residency.residency import Residency

log = logging.getLogger(__name__)


def load_pipeline(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    mesh: Mesh,
    attention_backend: str = "auto",
    file: Path | None = None,
    component_files: Mapping[str, Path] | None = None,
    device_memory_gb: float | None = None,
    residency: ResidencyChoice = "auto",
    quantization: Quantization | None = None,
    prompt_enhancer: Path | None = None,
    report: Callable[[str, int, int], None] = lambda name, loaded, total: None,
) -> ComposedPipeline:
    """Load the components in `folder`, replaced by those in files, ready to run. Raises
    InvalidCheckpoint, InvalidRequest.

    `device_memory_gb`, `residency`, `quantization` and `prompt_enhancer` are as in EngineArgs;
    `report` as for `LoadingMeter`.
    """
    checkpoint = Checkpoint.open(folder, file, component_files, quantization)
    family = family_named(checkpoint.pipeline_class, checkpoint.index)
    module = importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}")
    kind: type[ComposedPipeline] = module.PIPELINE.variant(checkpoint)
    context = RankContext(device, dtype, mesh, attention_backend)
    room = decoding_room(device, device_memory_gb)
    budget = MemoryBudget.of(context, device_memory_gb, residency, room)
    enhancer = EnhancerFolder(prompt_enhancer) if prompt_enhancer and context.encodes else None
    pipeline = _load(kind, checkpoint, context, budget, report, enhancer)
    pipeline.limit_decoding(room)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            pack_weights(component)
    _check_defaults(pipeline)
    names = pipeline.components_of_kind(pipeline.denoiser_name)
    denoisers = {name: pipeline.components[name] for name in names}
    pipeline.unpacked = unpacking_warnings(denoisers, device, dtype)
    unheard = without_effect(denoisers, quantization) if quantization else ()
    for warning in (*checkpoint.unused, *unheard, *pipeline.warnings) if mesh.rank == 0 else ():
        log.warning("%s", warning)
    return pipeline


def _load(
    kind: type[ComposedPipeline],
    checkpoint: Checkpoint,
    context: RankContext,
    budget: MemoryBudget | None,
    report: Callable[[str, int, int], None],
    enhancer: EnhancerFolder | None,
) -> ComposedPipeline:
    if context.mesh.world_size > 1 and not kind.supports_ranks:
        allowed = f"must be 1: {checkpoint.pipeline_class} runs as a fallback, on one rank only"
        raise InvalidRequest("num_gpus", context.mesh.world_size, allowed)
    kind.check(checkpoint)
    scheduler_config = kind.solver_config(checkpoint)
    defaults = checkpoint.defaults(kind.default_params(checkpoint))
    more = 0 if enhancer is None else enhancer.size
    stays = budget is None or budget.holds(checkpoint, context.dtype, defaults, more)
    loading = context if stays else replace(context, device=torch.device("cpu"))
    # What is loaded on the CPU for another device is as if it were loaded there.
    checkpoint = replace(checkpoint, keep_narrow=context.device.type == "cpu")
    components = _components(kind, checkpoint, loading, report)
    settings, residency = kind.settings(checkpoint), Residency()
    writer = None if enhancer is None else enhancer.load(context.dtype, loading.device)
    placed = components if writer is None else {**components, ENHANCER: writer.module}
    if budget is not None:
        budget = replace(budget, choice="device") if stays else budget
        residency = place(kind, placed, defaults, context, budget)
    with complaints("config.json of a component"):
        pipeline = kind(components, scheduler_config, defaults, context, residency, **settings)
    pipeline.enhancer = writer
    pipeline.stated_limits = checkpoint.limits()
    pipeline.step_caches = checkpoint.step_caches(kind.family.step_caches)
    return pipeline


def _components(
    kind: type[ComposedPipeline],
    checkpoint: Checkpoint,
    context: RankContext,
    report: Callable[[str, int, int], None],
) -> dict[str, Any]:
    names = [name for name in kind.family.components if not kind.is_absent(checkpoint, name)]
    meter = LoadingMeter({name: _size(checkpoint, name, context) for name in names}, report)
    checkpoint = replace(checkpoint, loaded=meter.within)
    components = {}
    for name in names:
        with meter.component(name):
            components[name] = kind.load_component(checkpoint, name, context)
    return components


def _size(checkpoint: Checkpoint, name: str, context: RankContext) -> int:
    """Bytes that this rank loads of a component."""
    return 0 if context.place(name).type == "meta" else checkpoint.size(name)


def _check_defaults(pipeline: ComposedPipeline) -> None:
    """Check that a request without any parameters is valid, and that its solver can be created."""
    try:
        model = pipeline.model_info("checkpoint")
        params = resolve(SamplingParams(), model, placeholder_inputs(model))
        pipeline.solver(params, torch.Generator())
    except InvalidRequest as error:
        raise InvalidCheckpoint(
            f"defaults (generation_defaults.json or configs): {error}"
        ) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        # Raised by diffusers' classes and the schedule for values of a wrong type.
        raise InvalidCheckpoint(
            f"scheduler_config.json or vae/config.json: can't be used: "
            f"{type(error).__name__}: {error}"
        ) from error
