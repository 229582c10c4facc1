"""The parameters of a request that mean what a sampler's inputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.prompts.grammar import has_weights
from multimodal_gen.configs.solvers import OWN_SPACING
from multimodal_gen.entrypoints.http.comfyui.errors import meaningless, shown
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import nearest, noise_schedule_of
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    ConditioningValue,
    ControlValue,
    Given,
    LatentValue,
    LoadedImage,
    LoadedMask,
    LoraValue,
    SampledLatent,
    ScheduleValue,
    SizeOf,
)
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import control_names, named_images

_SHOWN = 20


@dataclass
class RequestParameters:
    """Parameters, their origins and warnings found so far."""

    model: ModelInfo
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    pictures: dict[str, LoadedImage] = field(default_factory=dict)
    """Input images by their names in a request."""
    mask: LoadedMask | None = None
    sized_by: str = ""
    """Name of the input image whose size the output has."""
    warnings: list[tuple[str, Given[Any], str]] = field(default_factory=list)
    """Inputs that have no effect, or another than asked for, each with a code and what happens
    instead."""

    @classmethod
    def of(
        cls,
        sampled: SampledLatent,
        model: ModelInfo,
        loras: Sequence[str],
        controls: Sequence[str],
    ) -> RequestParameters:
        """Raises InvalidInput for what the model can't do."""
        found = cls(model)
        stages = [each for each in (sampled.first, sampled) if each is not None]
        if len(stages) == 2:
            found._check_experts(sampled)
        experts = [name for name in model.lora_targets if not name.startswith("text_encoder")]
        targets = experts if len(stages) == 2 == len(experts) else [None] * len(stages)
        for stage, target in zip(stages, targets, strict=True):
            found._add_loras(stage.guider.model.loras, loras, target)
        found._prompts(stages[0])
        found._guidance(stages)
        found._solver(stages[0])
        found._shift(sampled)
        found._start(stages[0])
        found._steer(stages[0].guider.positive.controls, controls)
        found._enlarge(sampled)
        return found

    def put(self, parameter: str, given: Given[Any], value: Any = None) -> None:
        self.values[parameter] = given.value if value is None else value
        self.origins[parameter] = given.node, given.name

    # -- prompts and guidance

    def _prompts(self, sampled: SampledLatent) -> None:
        guider = sampled.guider
        if guider.positive.text is None:
            raise meaningless(sampled.node, "positive", "must be a text: there is nothing to show")
        self.put("prompt", guider.positive.text)
        self._syntax(guider.positive.text)
        self._frame_rate(guider.positive)
        negative = guider.negative
        if negative is None:
            return
        if negative.text is not None:
            self.put("negative_prompt", negative.text)
            self._syntax(negative.text)
        elif self.model.defaults.negative_prompt is not None:
            self.values["negative_prompt"] = ""

    def _syntax(self, text: Given[str]) -> None:
        if "prompt_syntax" in self.model.parameters:
            self.values["prompt_syntax"] = "comfyui"
        elif has_weights(text.value, "comfyui"):
            self._idle(text, f"{self.model.family} reads weights as text")

    def _frame_rate(self, positive: ConditioningValue) -> None:
        rate = positive.frame_rate
        if rate is None:
            return
        if "fps" in self.model.parameters:
            self.put("fps", rate, max(1, round(rate.value)))
        else:
            self._idle(rate, f"{self.model.family} has no frame rate")

    def _guidance(self, stages: Sequence[SampledLatent]) -> None:
        guidance = stages[0].guider.positive.guidance
        if guidance is not None and self._guidance_is_embedded:
            self.put("guidance_scale", guidance)
        elif guidance is not None:
            self._idle(guidance, f"{self.model.family} only has the sampler's cfg")
        parameter = "true_cfg_scale" if self._guidance_is_embedded else "guidance_scale"
        names = (parameter, "guidance_scale_2")
        for name, stage in zip(names, stages, strict=False):
            if stage.guider.cfg is not None:
                self.put(name, stage.guider.cfg)
            else:
                self.values[name] = 1.0

        for parameter, given in stages[0].guider.model.guidance:
            if parameter in self.model.parameters:
                self.put(parameter, given)
            else:
                self._idle(given, f"{self.model.family} has no {parameter}")

    @property
    def _guidance_is_embedded(self) -> bool:
        """True if guidance_scale is embedded in the model, and cfg is true_cfg_scale."""
        return "true_cfg_scale" in self.model.parameters

    def _check_experts(self, sampled: SampledLatent) -> None:
        if "guidance_scale_2" not in self.model.parameters:
            why = f"must be an empty latent: {self.model.family} has no second expert"
            raise meaningless(sampled.node, "latent_image", why)
        stage = sampled.first.stage if sampled.first is not None else None
        assert stage is not None
        self._idle(stage.end_input, "the experts take turns at the model's own boundary")

    # -- the model

    def _add_loras(
        self, used: Sequence[LoraValue], known: Sequence[str], target: str | None
    ) -> None:
        # The last one is blamed first if several are unknown.
        names = [self._lora(use, known) for use in reversed(used)]
        for use, name in zip(used, reversed(names), strict=True):
            scales = {(each.name, each.target): each.scale for each in self.values.get("lora", ())}
            scales[name, target] = scales.get((name, target), 0.0) + use.scale
            chosen = tuple(LoraChoice(of, scale, to) for (of, to), scale in scales.items())
            self.put("lora", use.name, chosen)

    def _lora(self, use: LoraValue, known: Sequence[str]) -> str:
        return _known(use.name, known)

    def _steer(self, used: Sequence[ControlValue], known: Sequence[str]) -> None:
        chosen = []
        for name, use in zip(control_names(len(used)), used, strict=True):
            control = _known(use.net.name, known)
            chosen.append(
                ControlChoice(control, None, use.scale, use.start, use.stop, use.net.mode)
            )
            self.pictures[name] = use.image
            self.put("control", use.net.name, tuple(chosen))

    def _shift(self, sampled: SampledLatent) -> None:
        shift = sampled.guider.model.shift
        if shift is None or shift.value == self.model.defaults.flow_shift:
            return
        if "flow_shift" in self.model.parameters:
            self.put("flow_shift", shift)
        else:
            self._idle(shift, f"{self.model.family} has its own shift")

    # -- the solver

    def _solver(self, sampled: SampledLatent) -> None:
        # ComfyUI's seeds have one more bit.
        self.put("seed", sampled.seed, sampled.seed.value % (self.model.max_seed + 1))
        self.put("num_inference_steps", sampled.schedule.steps)
        asked = sampled.solver
        solver, is_same = nearest(asked.value, self.model.schedulers)
        if solver is not None:
            self.put("scheduler", asked, solver)
        if not is_same:
            used = solver or "its own"
            self.warnings.append(
                ("nearest_solver", asked, f"is not available: {self.model.family} uses {used}")
            )
        self._noise_schedule(sampled, solver)

    def _noise_schedule(self, sampled: SampledLatent, solver: str | None) -> None:
        given = sampled.schedule.name
        name = given if isinstance(given, str) else given.value
        where = sampled.schedule.steps if isinstance(given, str) else given
        schedule, is_same = noise_schedule_of(name, solver, self.model)
        if schedule != OWN_SPACING:
            self.put("noise_schedule", where, schedule)
        if not is_same:
            what = f"has the model's own schedule: {name} is not available"
            if solver is not None:
                what += f" for {solver}"
            self.warnings.append(("nearest_schedule", where, what))

    # -- where it starts

    def _start(self, sampled: SampledLatent) -> None:
        latent = sampled.latent
        references = sampled.guider.positive.references
        if latent.batch is not None:
            self.put("num_outputs_per_prompt", latent.batch)
        self._size(latent)
        if references:
            self._edit(sampled, references)
        elif latent.references:
            self._use(latent.references, "reference-to-video")
        elif latent.first_frame is not None:
            self._use([latent.first_frame], "image-to-video")
        elif latent.image is not None:
            self._begin_with(latent.image, sampled)
        if latent.last_frame is not None:
            self.pictures["last_image"] = latent.last_frame
            self.origins["last_image_path"] = latent.node, "end_image"
        if latent.image is None:
            self._check_denoise(sampled)
            self._check_size(latent)

    def _size(self, latent: LatentValue) -> None:
        for name, side in (("width", latent.width), ("height", latent.height)):
            if isinstance(side, Given):
                self.put(name, side)
        given = latent.width
        self.origins["size"] = (
            (given.node, given.name) if isinstance(given, Given) else (latent.node, "width")
        )
        if latent.frames is not None:
            self.put("num_frames", latent.frames)
        elif self.model.defaults.num_frames > 1:
            self.values["num_frames"] = 1
            self.origins["num_frames"] = latent.node, "batch_size"

    def _check_size(self, latent: LatentValue) -> None:
        """The size of an image can only be the output's if the request has that image."""
        sides = [side for side in (latent.width, latent.height) if isinstance(side, SizeOf)]
        if not sides:
            return
        files = {side.image.file for side in sides}
        named = {image.file: name for name, image in self.pictures.items()}
        if len(sides) < 2 or len(files) > 1 or not files <= named.keys():
            why = "only an image that is edited can give the size, and it gives both sides"
            raise meaningless(latent.node, "width", why)
        self.sized_by = named[files.pop()]

    def _check_denoise(self, sampled: SampledLatent) -> None:
        denoise = sampled.schedule.denoise
        if denoise is not None and denoise.value != 1:
            why = "must be 1 if the sampler starts from an empty latent"
            if denoise.name == "start_at_step":
                why = "must be 0 if the sampler starts from an empty latent"
            raise meaningless(denoise.node, denoise.name, why)

    def _edit(self, sampled: SampledLatent, references: Sequence[LoadedImage]) -> None:
        """Condition on images. The latent only gives the size."""
        latent = sampled.latent
        started = latent.image
        shown: dict[str, LoadedImage] = {}
        for image in references:  # text encoders and denoiser may each be given the same one
            shown.setdefault(image.file, image)
        if started is not None and started.file not in shown:
            raise meaningless(latent.node, "pixels", "must be an image that is edited")
        if started is not None:
            shown[started.file] = started
        self._use([*shown.values()], "image-edit")
        if started is not None:
            if not started.resized_by_model:
                self.sized_by = next(n for n, each in self.pictures.items() if each is started)
            self._check_denoise(sampled)

    def _begin_with(self, image: LoadedImage, sampled: SampledLatent) -> None:
        latent, denoise = sampled.latent, sampled.schedule.denoise
        self._set_images([image])
        self.sized_by = "image"
        if (mask := latent.mask) is not None:
            self.mask = mask
            self.origins["mask_path"] = latent.mask_from or latent.node, "mask"
        task = "image-to-image" if mask is None else "inpainting"
        strength = 1.0 if denoise is None else denoise.value
        # Models that take the image as conditioning don't start from it: no strength applies.
        if strength < 1 or task in self.model.tasks:
            self._strength(sampled, strength)

    def _strength(self, sampled: SampledLatent, strength: float) -> None:
        """ComfyUI does all steps, at the end of a schedule that is longer by the strength."""
        denoise, steps = sampled.schedule.denoise, sampled.schedule.steps
        if 0 < strength < 1:
            total, strength = _lengthened(sampled.schedule, strength)
            self.put("num_inference_steps", steps, total)
        self.put("strength", steps if denoise is None else denoise, strength)

    def _enlarge(self, sampled: SampledLatent) -> None:
        """By a model, and by a second pass from the result."""
        enlarging = sampled.enlarging
        if enlarging is None:
            return
        chosen: dict[str, Any] = {"factor": enlarging.factor.value}
        if enlarging.model is not None:
            chosen["model"] = str(enlarging.model.value).removesuffix(".safetensors")
        if (again := enlarging.again) is not None:
            strength = 1.0 if again.denoise is None else again.denoise.value
            steps = again.steps.value
            if 0 < strength < 1:
                steps, strength = _lengthened(again, strength)
            chosen |= {"strength": strength, "steps": steps}
        self.put("upscale", enlarging.model or enlarging.factor, chosen)

    def _use(self, images: Sequence[LoadedImage], task: str) -> None:
        if task not in self.model.tasks:
            tasks = ", ".join(self.model.tasks)
            why = f"not used by {self.model.family}, which supports {tasks}"
            raise meaningless(images[0].node, "image", why)
        most = self.model.limits.max_images
        if len(images) > most:
            why = f"{len(images)} images: {self.model.family} takes at most {most}"
            raise meaningless(images[most].node, "image", why)
        self._set_images(images)

    def _set_images(self, images: Sequence[LoadedImage]) -> None:
        self.pictures = named_images(images)
        for name in ("size", "width", "height"):
            self.origins.setdefault(name, (images[0].node, "image"))
        self.origins["image_path"] = images[0].node, "image"

    # -- warnings

    def _idle(self, given: Given[Any], why: str) -> None:
        self.warnings.append(("no_effect", given, f"has no effect: {why}"))


def _known(file: Given[str], known: Sequence[str]) -> str:
    """Return an adapter's name from the file name in the graph. Raises InvalidInput."""
    given = str(file.value)
    name = given.removesuffix(".safetensors")
    if name in known:
        return name
    listed = ", ".join(known[:_SHOWN]) or "none"
    raise meaningless(file.node, file.name, f"{shown(given)} is unknown; available: {listed}")


def _lengthened(schedule: ScheduleValue, strength: float) -> tuple[int, float]:
    """Steps of the longer schedule that ends with the given steps, and the part of it that they
    are."""
    steps, denoise = schedule.steps, schedule.denoise
    # `start_at_step` is a step of the schedule itself.
    whole = denoise is not None and denoise.name == "denoise"
    part = steps.value if whole else round(steps.value * strength)
    total = _exact(part, int(steps.value / strength) if whole else steps.value)
    return total, part / total


def _exact(part: int, whole: int) -> int:
    """The first number from `whole` on, `part` of which are `part` also in floating point: the
    engine rounds up for some models and down for others."""
    while part / whole * whole != part:
        whole += 1
    return whole
