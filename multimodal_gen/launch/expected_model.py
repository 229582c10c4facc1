"""Facts about a model that its files tell before it is loaded, to refuse requests early."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from multimodal_gen.checkpoints.files import read_json
from multimodal_gen.checkpoints.header import WEIGHT_SUFFIXES
from multimodal_gen.checkpoints.identify import identify, index_missing
from multimodal_gen.checkpoints.index import index_name
from multimodal_gen.checkpoints.scheduler_config import scheduler_config
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.solver_choice import default_solver_name, solver_names, view_of
from multimodal_gen.configs.solvers import (
    NOISE_SCHEDULES,
    SCHEDULE_PARAMETERS,
    SOLVERS,
    noise_schedules_of,
)
from multimodal_gen.configs.step_cache import QUALITIES
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.launch.hub import is_repository
from multimodal_gen.launch.model_path import BUNDLED_MODEL, locate
from multimodal_gen.messages.model_defaults import Defaults
from multimodal_gen.messages.model_info import Limits, ModelInfo, StatedLimits
from multimodal_gen.messages.pictures import Pictures
from multimodal_gen.messages.validation import resolve

_DEFAULTS = "generation_defaults.json"
_WITH_A_FOLDER = {"upscale", "lora", "control", "enhance_prompt"}
"""Parameters of every family, or of none: only the engine knows."""
_TARGETS = ("transformer", "transformer_2", "unet", "text_encoder", "text_encoder_2")
_PUBLISHED_VAE_BLOCKS = 4
"""Of the image VAEs that families' size multiples are for."""
_LONGEST = 10**6
_EMBEDDED = ("hunyuan_video", "flux2_dev")
"""Families whose denoisers always take a guidance scale as an input."""


def expected_model(args: EngineArgs) -> ModelInfo | None:
    """Describe the model that an engine with these arguments will have, more permissively than the
    engine does; None if its files are not here, or do not tell."""
    path = BUNDLED_MODEL if args.model_path is None else _located(args.model_path, args.revision)
    if path is None or path.is_file():
        return None
    try:
        family = identify(path).family
        told = family is not None and family.denoiser != "fallback" and bool(family.views)
        return _described(path, family) if family is not None and told else None
    except (InvalidCheckpoint, KeyError):
        return None


def facts_of(folder: Path) -> tuple[StatedLimits, tuple[str, ...]]:
    """Limits that a checkpoint states, and sampling parameters that have no effect on it; neither
    if that is not known."""
    try:
        family = identify(folder).family
        if family is None or not folder.is_dir():
            return StatedLimits(), ()
        native = family.denoiser != "fallback" and bool(family.views)
        return _stated(folder)[1], _no_effect(folder, family) if native else ()
    except (InvalidCheckpoint, KeyError):
        return StatedLimits(), ()


def check_model_path(args: EngineArgs) -> None:
    """Raise InvalidRequest for a path that no model is at, and that is no name on the hub."""
    for name in ("model_path", "base_model_path"):
        given = getattr(args, name)
        if given is None:
            continue
        local = user_path(given)
        if local.is_dir() and index_name(local) is None:
            raise InvalidRequest(name, given, index_missing(local))
        if not local.exists() and not _may_be_on_hub(given):
            allowed = "no such file or folder, and not a hub name such as owner/name"
            raise InvalidRequest(name, given, allowed)


def _may_be_on_hub(given: str) -> bool:
    owner, _, rest = given.partition("/")
    name, _, file = rest.partition("/")
    is_file = given.endswith(WEIGHT_SUFFIXES)
    return is_repository(f"{owner}/{name}") and bool(file) == is_file


def _located(model_path: str, revision: str | None) -> Path | None:
    try:
        return locate(model_path, revision)
    except InvalidCheckpoint:
        return None


def _described(folder: Path, family: FamilyConfig) -> ModelInfo:
    index = read_json(folder, "model_index.json")
    scheduler = scheduler_config(folder, str(index["scheduler"][1]))
    own, view = default_solver_name(scheduler), view_of(scheduler)
    schedulers = (own, *(name for name in solver_names(scheduler) if name != own))
    return ModelInfo(
        name=folder.name,
        family=family.name,
        tasks=family.tasks,
        defaults=_defaults(folder, family.defaults),
        limits=_stated(folder)[1].within(family.limits),
        no_effect=_no_effect(folder, family),
        picture_size=family.picture_size,
        last_image_alone=family.last_image_alone,
        size_multiple=_size_multiple(folder, family),
        parameters=(*family.parameters, *SCHEDULE_PARAMETERS[view], *_WITH_A_FOLDER),
        upscale_ways=("second-pass", "model", "latents"),
        schedulers=schedulers,
        qualities=QUALITIES,
        noise_schedules=noise_schedules_of(schedulers, [view]),
        lora_targets=_TARGETS,
    )


def _defaults(folder: Path, usual: Defaults) -> Defaults:
    own, _ = _stated(folder)
    known = {name: own[name] for name in Defaults.__struct_fields__ if name in own}
    try:
        return msgspec.convert({**msgspec.structs.asdict(usual), **known}, Defaults)
    except msgspec.ValidationError:
        return usual


def _stated(folder: Path) -> tuple[Mapping[str, Any], StatedLimits]:
    """Defaults and limits in the checkpoint; what is wrong with them is told when it is loaded."""
    own = read_json(folder, _DEFAULTS) if (folder / _DEFAULTS).is_file() else {}
    try:
        return own, msgspec.convert(own.get("limits", {}), StatedLimits)
    except msgspec.ValidationError:
        return own, StatedLimits()


def _no_effect(folder: Path, family: FamilyConfig) -> tuple[str, ...]:
    """As `ModelInfo.no_effect`, from the family and the checkpoint's configs."""
    distilled = read_json(folder, "model_index.json").get("is_distilled", family.name in _EMBEDDED)
    config = folder / "transformer" / "config.json"
    told = read_json(folder, "transformer/config.json") if config.is_file() else {}
    embeds = family.name in _EMBEDDED or told.get("guidance_embeds") is True
    guided = any(name in GUIDANCE_PARAMETERS for name in family.parameters)
    guided = guided and not (family.name.startswith("flux2") and distilled)
    by_true = "true_cfg_scale" in family.parameters
    starts = {"image-to-image", "inpainting"} & {*family.tasks} or family.defaults.strength
    taken = {
        "guidance_scale": embeds or (guided and not by_true),
        "negative_prompt": guided,
        "strength": bool(starts),
    }
    return tuple(name for name, is_taken in taken.items() if not is_taken)


def _size_multiple(folder: Path, family: FamilyConfig) -> int:
    """The family's, for a VAE like the published one; else 1, as only the engine knows."""
    config: Mapping[str, Any] = read_json(folder, "vae/config.json")
    blocks = config.get("block_out_channels")
    published = isinstance(blocks, list) and len(blocks) == _PUBLISHED_VAE_BLOCKS
    videos = "num_frames" in family.parameters
    return family.size_multiple if published and not videos else 1


def check_early(params: SamplingParams, pictures: Pictures, model: ModelInfo | None) -> None:
    """Check a request by what is known of the model; if that is nothing, by what is the same for
    all: constant bounds, limits, names of solvers. Raises InvalidRequest."""
    if model is not None:
        resolve(params, model, pictures)
        return
    for name, parameter in PARAMETERS.items():
        if (value := getattr(params, name)) not in (None, parameter.default):
            parameter.check_value(value, _ANY_MODEL)


_ANY_MODEL = ModelInfo(
    name="any",
    family="any",
    tasks=("text-to-image",),
    defaults=Defaults(width=1, height=1, num_inference_steps=1),
    limits=Limits(max_frames=_LONGEST, max_sequence_length=_LONGEST),
    size_multiple=1,
    schedulers=tuple(SOLVERS),
    qualities=QUALITIES,
    noise_schedules=tuple(dict.fromkeys(chain.from_iterable(NOISE_SCHEDULES.values()))),
)
