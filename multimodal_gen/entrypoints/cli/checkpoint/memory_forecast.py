"""Memory that a checkpoint needs, and where its components would be on the device at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multimodal_gen.checkpoints.description import Component, Description
from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.entrypoints.cli.checkpoint.kept_size import KeptWeights, used
from multimodal_gen.entrypoints.cli.text_output import bytes_text
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.device_memory import DeviceMemory
from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.residency import ComponentMemory, plan_residency
from multimodal_gen.scheduling.working_memory import (
    DECODING_SHARE,
    Together,
    expected_work,
    moments_of,
    needed_together,
)

_DENOISERS = ("transformer", "unet")
_CPU_WIDTH, _GPU_WIDTH = 4, 2
"""Bytes of a number in the default dtype: float32, and bfloat16 or float16."""


@dataclass(frozen=True)
class MemoryForecast:
    """Statement of `models` about memory."""

    kept: Mapping[str, int]
    """Bytes of each component once it is loaded."""
    places: Mapping[str, str]
    """Where each component is: on the device, on the host, streamed."""
    sentence: str


def whole_components(found: Description) -> tuple[tuple[Component, ...], str | None]:
    """The components of a checkpoint; for a single file with those that it lacks, as far as they
    are on this machine, and the base whose components are not."""
    if found.family is None or found.base is None:
        return found.components, None
    denoiser = next(name for name in found.family.components if name in _DENOISERS)
    own = tuple(
        replace(each, name=denoiser) if each.name == "denoiser" else each
        for each in found.components
    )
    folder = _base_folder(found.base)
    if folder is None:
        return own, found.base
    held = {each.name for each in own}
    return (*own, *(each for each in identify(folder).components if each.name not in held)), None


def _base_folder(base: str) -> Path | None:
    from multimodal_gen.launch.hub import cached_checkpoint

    return Path(base) if Path(base).is_dir() else cached_checkpoint(base)


def forecast(
    family: FamilyConfig, components: Iterable[Component], device: DeviceMemory
) -> MemoryForecast:
    """Estimate the memory of requests of the default size."""
    width = _CPU_WIDTH if device.is_cpu else _GPU_WIDTH
    weights = {}
    for each in components:
        spec = family.components.get(each.name)
        if each.tensors and spec is not None:
            tensors, is_native = used(each.tensors, spec), spec.kind == "native"
            weights[each.name] = KeptWeights(
                tensors, width, device.is_cpu, is_native, spec.resident
            )
    if device.is_cpu:
        return _on_cpu(weights, device)
    return _on_gpu(family, weights, device)


def used_together(family: FamilyConfig, names: Sequence[str]) -> list[Together]:
    """Components, of these, that are on the device at once, by phase."""
    if family.in_one_call:
        return [(phase, tuple(names)) for phase in Phase]
    denoiser = next((name for name in names if name in _DENOISERS), "")
    groups = needed_together(names, denoiser)
    others = [name for name in names if not any(name in group for _, group in groups)]
    return [*groups, *((Phase.DENOISE, (name,)) for name in others)]


def _on_cpu(weights: Mapping[str, KeptWeights], device: DeviceMemory) -> MemoryForecast:
    sizes = {name: each.size for name, each in weights.items()}
    own, mapped = (sum(part) for part in zip(*sizes.values(), strict=True)) if sizes else (0, 0)
    if own > device.free:
        verdict = "does not fit"
    elif own + mapped > device.free:
        verdict = "runs, but reads its files anew in each step"
    else:
        verdict = "fits"
    told = f"{_text(own)} in memory and {_text(mapped)} in pages of the files"
    mostly_mapped = (name for name, size in sizes.items() if size.mapped > size.own)
    return MemoryForecast(
        {name: sum(size) for name, size in sizes.items()},
        dict.fromkeys(mostly_mapped, "pages of its file"),
        f"{verdict} on {device.name} with {_text(device.free)} free: {told}",
    )


def _on_gpu(
    family: FamilyConfig, weights: Mapping[str, KeptWeights], device: DeviceMemory
) -> MemoryForecast:
    parameters = {name: each.parameters for name, each in weights.items()}
    kept = {name: sum(each.size) for name, each in weights.items()}
    alike = used_together(family, [*weights])
    memory = []
    for name, each in weights.items():
        evaluations, seconds = expected_work(
            parameters[name], family.defaults, denoises=name.startswith(_DENOISERS)
        )
        memory.append(
            ComponentMemory(
                name=name,
                size=kept[name],
                blocks=each.blocks,
                evaluations=evaluations,
                evaluation_s=seconds,
            )
        )
    where = f"on {device.name} with {_text(device.free)}"
    decoding = device.free // DECODING_SHARE
    moments = [*moments_of(alike, parameters, family.defaults, decoding)]
    try:
        plan = plan_residency(memory, moments, device.free)
    except InvalidRequest as error:
        return MemoryForecast(kept, {}, f"does not fit {where}: {error.message}")
    places = {
        each.name: f"streamed {len(each.streamed)} of {each.blocks} blocks"
        if each.mode == "streamed"
        else each.mode
        for each in plan.placements
    }
    told = f"fits {where}: {plan.sentence}, {_text(plan.needed)} at most"
    return MemoryForecast(kept, places, told)


def _text(size: int) -> str:
    return bytes_text(size, digits=2)
