"""Samplers and their parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multimodal_gen.configs.solvers import OWN_SPACING
from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    Meaning,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    real,
    seed,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import SCHEDULES, menu_of
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    ConditioningValue,
    EnlargedLatent,
    Given,
    GuiderValue,
    LatentValue,
    ModelValue,
    NoiseValue,
    SampledLatent,
    SampledPart,
    ScheduleValue,
    SolverValue,
)
from multimodal_gen.messages.model_info import ModelInfo


def sampling(model: ModelInfo) -> tuple[NodeClass, ...]:
    steps = integer(model.defaults.num_inference_steps, 1, 10_000)
    sampler = {"sampler_name": choice(*menu_of(model.schedulers))}
    return (
        *_samplers(model, steps, sampler),
        *_schedules(steps),
        NodeClass(
            "KSamplerSelect",
            "KSamplerSelect",
            "sampling/custom_sampling/samplers",
            sampler,
            lambda inputs: (SolverValue(inputs.given("sampler_name")),),
            ("SAMPLER",),
        ),
        NodeClass(
            "RandomNoise",
            "RandomNoise",
            "sampling/custom_sampling/noise",
            {"noise_seed": seed()},
            lambda inputs: (NoiseValue(inputs.given("noise_seed")),),
            ("NOISE",),
        ),
    )


def _samplers(model: ModelInfo, steps: Input, sampler: dict[str, Input]) -> tuple[NodeClass, ...]:
    defaults = model.defaults
    cfg = {"cfg": real(defaults.true_cfg_scale or defaults.guidance_scale, 0.0, 100.0)}
    both = {"positive": link("CONDITIONING"), "negative": link("CONDITIONING")}
    start = {"latent_image": link("LATENT")}
    chosen = {"steps": steps, **cfg, **sampler, "scheduler": choice(*SCHEDULES), **both, **start}
    used, denoise = {"model": link("MODEL")}, {"denoise": real(1.0, 0.0, 1.0)}
    part = {"start_at_step": integer(0, 0, 10_000), "end_at_step": integer(10_000, 0, 10_000)}
    noise = {"add_noise": choice("enable", "disable"), "noise_seed": seed()}
    left = {"return_with_leftover_noise": choice("disable", "enable")}
    custom = {"sampler": link("SAMPLER"), "sigmas": link("SIGMAS"), **start}
    seeded = {"add_noise": flag(True), "noise_seed": seed()}
    guided = {"noise": link("NOISE"), "guider": link("GUIDER")}
    return (
        _sampler("KSampler", {**used, "seed": seed(), **chosen, **denoise}, _run),
        _sampler(
            "KSamplerAdvanced",
            {**used, **noise, **chosen, **part, **left},
            _run_part,
        ),
        _custom("SamplerCustom", {**used, **seeded, **cfg, **both, **custom}, _run_custom),
        _custom("SamplerCustomAdvanced", {**guided, **custom}, _run_guided),
        _guider("BasicGuider", {**used, "conditioning": link("CONDITIONING")}, _basic),
        _guider("CFGGuider", {**used, **both, **cfg}, lambda inputs: (_guider_of(inputs),)),
    )


def _sampler(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    return NodeClass(name, name, "sampling", inputs, meaning, ("LATENT",))


def _custom(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    outputs, names = ("LATENT", "LATENT"), ("output", "denoised_output")
    return NodeClass(name, name, "sampling/custom_sampling", inputs, meaning, outputs, names)


def _guider(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    return NodeClass(name, name, "sampling/custom_sampling/guiders", inputs, meaning, ("GUIDER",))


def _basic(inputs: NodeInputs) -> tuple[object, ...]:
    model = inputs.linked("model", ModelValue)
    return (GuiderValue(model, inputs.linked("conditioning", ConditioningValue)),)


def _guider_of(inputs: NodeInputs) -> GuiderValue:
    return GuiderValue(
        inputs.linked("model", ModelValue),
        inputs.linked("positive", ConditioningValue),
        inputs.linked("negative", ConditioningValue),
        inputs.given("cfg"),
    )


def _run(inputs: NodeInputs) -> tuple[object, ...]:
    schedule = _chosen_schedule(inputs, inputs.given("denoise"))
    solver = inputs.given("sampler_name")
    return (_sampled(inputs, _guider_of(inputs), inputs.given("seed"), solver, schedule),)


def _run_custom(inputs: NodeInputs) -> tuple[object, ...]:
    if not inputs.value("add_noise"):
        raise inputs.refused("add_noise", "must be true: latents start from noise")
    sampled = _run_with(inputs, _guider_of(inputs), inputs.given("noise_seed"))
    return sampled, sampled


def _run_guided(inputs: NodeInputs) -> tuple[object, ...]:
    guider = inputs.linked("guider", GuiderValue)
    sampled = _run_with(inputs, guider, inputs.linked("noise", NoiseValue).seed)
    return sampled, sampled


def _run_with(inputs: NodeInputs, guider: GuiderValue, chosen: Given[int]) -> SampledLatent:
    solver, schedule = inputs.linked("sampler", SolverValue), inputs.linked("sigmas", ScheduleValue)
    return _sampled(inputs, guider, chosen, solver.name, schedule)


def _sampled(
    inputs: NodeInputs,
    guider: GuiderValue,
    seed: Given[int],
    solver: Given[str],
    schedule: ScheduleValue,
) -> SampledLatent:
    start = inputs.anything("latent_image")
    if isinstance(start, EnlargedLatent):
        return _sampled_again(inputs, start.sampled, guider, (seed, solver), schedule)
    latent = inputs.linked("latent_image", LatentValue)
    return SampledLatent(inputs.node.id, guider, seed, solver, schedule, latent)


def _sampled_again(
    inputs: NodeInputs,
    first: SampledLatent,
    guider: GuiderValue,
    chosen: tuple[Given[int], Given[str]],
    schedule: ScheduleValue,
) -> SampledLatent:
    """A second pass, in which all but the schedule is as in the first."""
    for name in ("model", "positive", "negative"):
        if getattr(guider, name) != getattr(first.guider, name):
            known = inputs.node.kind.inputs
            raise inputs.refused(
                name if name in known else "guider", f"must be the first sampler's {name}"
            )
    own: tuple[Given[Any] | None, ...] = (*chosen, guider.cfg)
    for value, other in zip(own, (first.seed, first.solver, first.guider.cfg), strict=True):
        if value is None or value.node != inputs.node.id:
            continue
        if other is None or value.value != other.value:
            inputs.ignored.add(value.name)
    assert first.enlarging is not None
    enlarging = replace(first.enlarging, again=schedule)
    return replace(first, node=inputs.node.id, enlarging=enlarging)


def _run_part(inputs: NodeInputs) -> tuple[object, ...]:
    """The whole schedule, its end from an image, or one of the two parts of a model's experts."""
    steps, end = inputs.given("steps"), inputs.given("end_at_step")
    start, last = inputs.given("start_at_step"), min(end.value, steps.value)
    first = None
    if inputs.value("add_noise") == "disable":
        first = inputs.linked("latent_image", SampledLatent)
        _check_parts(inputs, first, start.value)
    latent = inputs.linked("latent_image", LatentValue) if first is None else first.latent
    leaves = inputs.value("return_with_leftover_noise") == "enable" and last < steps.value
    if last < steps.value and not leaves:
        raise inputs.refused("end_at_step", "must be at least steps, or leave the noise to another")
    denoise = None
    if first is None and start.value:
        kept = 1 - min(start.value / steps.value, 1)
        denoise, steps = _of_part(start, kept), steps
    sampled = SampledLatent(
        inputs.node.id,
        _guider_of(inputs),
        inputs.given("noise_seed") if first is None else first.seed,
        inputs.given("sampler_name"),
        _chosen_schedule(inputs, denoise),
        latent,
        SampledPart(start.value, last, leaves, end),
        first,
    )
    if first is not None:
        inputs.given("noise_seed")  # There is no noise to draw.
    return (sampled,)


def _of_part(start: Given[int], kept: float) -> Given[float]:
    return Given(kept, start.node, start.name)


def _check_parts(inputs: NodeInputs, first: SampledLatent, start: int) -> None:
    stage = first.stage
    if first.first is not None or stage is None or not stage.leaves_noise:
        raise inputs.refused("latent_image", "must be the first part of the same denoising")
    if (stage.end, first.schedule.steps.value) != (start, inputs.value("steps")):
        raise inputs.refused("start_at_step", f"must go on after step {stage.end}, of as many")


def _chosen_schedule(inputs: NodeInputs, denoise: Given[float] | None) -> ScheduleValue:
    return ScheduleValue(inputs.given("scheduler"), inputs.given("steps"), denoise)


def _schedules(steps: Input) -> tuple[NodeClass, ...]:
    used, denoise = {"model": link("MODEL")}, {"denoise": real(1.0, 0.0, 1.0)}
    count = {"steps": steps}
    ends = {"sigma_max": real(14.614642, 0.0, 5000.0), "sigma_min": real(0.0291675, 0.0, 5000.0)}
    sides = {side: integer(1024, 16, MAX_SIDE) for side in ("width", "height")}
    ltx = {"max_shift": real(2.05, 0.0, 100.0), "base_shift": real(0.95, 0.0, 100.0)}
    stretch = {"stretch": flag(True), "terminal": real(0.1, 0.0, 0.99)}
    latent = {"latent": link("LATENT", optional=True)}
    beta = {name: real(0.6, 0.0, 50.0) for name in ("alpha", "beta")}
    named = {"scheduler": choice(*SCHEDULES)}
    rho = {"rho": real(7.0, 0.0, 100.0)}
    return (
        _schedule("BasicScheduler", {**used, **named, **count, **denoise}, _basic_schedule),
        _schedule("KarrasScheduler", {**count, **ends, **rho}, _own("karras")),
        _schedule("ExponentialScheduler", {**count, **ends}, _own("exponential")),
        _schedule("BetaSamplingScheduler", {**used, **count, **beta}, _own("beta")),
        _schedule("SDTurboScheduler", {**used, **count, **denoise}, _turbo),
        _schedule("Flux2Scheduler", {**count, **sides}, _own(OWN_SPACING, "width", "height")),
        _schedule("LTXVScheduler", {**count, **ltx, **stretch, **latent}, _own(OWN_SPACING)),
    )


def _schedule(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    category = "sampling/custom_sampling/schedulers"
    idle = "the schedule's own values are used"
    return NodeClass(name, name, category, inputs, meaning, ("SIGMAS",), idle=idle)


def _basic_schedule(inputs: NodeInputs) -> tuple[object, ...]:
    return (_chosen_schedule(inputs, inputs.given("denoise")),)


def _own(name: str, *sides: str) -> Meaning:
    """`sides` are those of the output, which the model's schedule depends on anyway."""

    def meaning(inputs: NodeInputs) -> tuple[object, ...]:
        for side in sides:
            inputs.side(side)
        denoise = inputs.given("denoise") if inputs.has("denoise") else None
        return (ScheduleValue(name, inputs.given("steps"), denoise),)

    return meaning


def _turbo(inputs: NodeInputs) -> tuple[object, ...]:
    """The first of ten steps, which for one step is the model's own schedule."""
    steps = inputs.given("steps")
    name = OWN_SPACING if steps.value == 1 else "sd_turbo"
    return (ScheduleValue(name, steps, inputs.given("denoise")),)
