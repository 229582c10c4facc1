"""Description of a pipeline and its checkpoint for clients."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.configs.solver_choice import (
    default_solver_name,
    replacement_warning,
    solver_names,
    view_of,
)
from multimodal_gen.configs.solvers import OWN_SPACING, SCHEDULE_PARAMETERS, noise_schedules_of
from multimodal_gen.configs.step_cache import QUALITIES, StepCaches
from multimodal_gen.messages.model_info import (
    Defaults,
    Limits,
    ModelInfo,
    PictureSize,
    StatedLimits,
    TaskName,
    UpscaleWay,
)
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.enhancer.enhancer import PromptEnhancer
from multimodal_gen.runtime.loader.upscalers import Upscalers
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.upscaler import Upscaler
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Guidance


class DescribedPipeline:
    """The properties that `ModelInfo` is made of; families override some of them."""

    family: ClassVar[FamilyConfig]
    supports_lora: ClassVar[bool] = True
    enlarges_latents: ClassVar[bool] = False
    """True if a second pass can start from latents of the first that a model enlarges."""
    supports_control: ClassVar[bool] = False
    """True if `predict` evaluates inside `Rows.controlled`."""
    scheduler_config: Mapping[str, Any]
    defaults: Defaults
    context: RankContext
    residency: Residency
    step_caches: StepCaches
    """Rules by which it extrapolates predictions, by `quality`; set when it is loaded."""
    guidance: Guidance
    enhancer: PromptEnhancer | None = None
    """Rewrites prompts, on the rank that encodes; set when it is loaded."""
    stated_limits = StatedLimits()
    """Limits that the checkpoint states; set when it is loaded."""
    unpacked: tuple[str, ...] = ()
    """Warnings about weights that are unpacked for each product; set when they are loaded."""

    @cached_property
    def upscalers(self) -> Upscalers:
        """The operator's models that enlarge results."""
        return Upscalers(self.context)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Components that a LoRA may apply to: the denoisers, then the text encoders."""
        raise LookupError

    @property
    def size_multiple(self) -> int:
        """Multiple that width and height must be of, in pixels."""
        raise LookupError

    @property
    def frame_multiple(self) -> int:
        """num_frames must be 1 more than a multiple of it."""
        raise LookupError

    def model_info(self, name: str) -> ModelInfo:
        """Describe this checkpoint to clients."""
        family = self.family
        return ModelInfo(
            name=name,
            family=family.name,
            tasks=self.tasks,
            defaults=self.defaults,
            limits=self.stated_limits.within(self.limits),
            picture_size=self.picture_size,
            last_image_alone=family.last_image_alone,
            sound=self.sound,
            size_multiple=self.size_multiple,
            frame_multiple=self.frame_multiple,
            parameters=(
                *self.parameters,
                *self.schedule_parameters,
                *(("upscale",) if self.upscale_ways else ()),
                *(("enhance_prompt",) if self.enhancer is not None else ()),
                *(("lora",) if self.supports_lora else ()),
                *(("control",) if self.supports_control or self.own_controls else ()),
            ),
            no_effect=self.no_effect,
            required=self.required,
            upscale_ways=self.upscale_ways,
            schedulers=self.schedulers,
            qualities=("exact", *(each for each in QUALITIES if each in self.step_caches)),
            noise_schedules=self.noise_schedules,
            warnings=self.warnings,
            controls=self.own_controls,
            lora_targets=self.lora_targets if self.supports_lora else (),
            residency="" if self.residency.plan is None else self.residency.plan.sentence,
            dtype=str(self.context.dtype).removeprefix("torch."),
            device=self.context.device.type,
        )

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """Tasks that this checkpoint supports."""
        return self.family.tasks

    @property
    def upscale_ways(self) -> tuple[UpscaleWay, ...]:
        """A second pass where it starts from images, and models where the operator has some."""
        starts = hasattr(self, "start") and {"text-to-image", "image-to-image"} <= {*self.tasks}
        second: tuple[UpscaleWay, ...] = ("second-pass",) if starts else ()
        model: tuple[UpscaleWay, ...] = ("model",) if self.upscalers.available else ()
        known = self.upscalers.available or self.upscalers.carried
        latents: tuple[UpscaleWay, ...] = ("latents",) if known and self.enlarges_latents else ()
        return (*second, *model, *latents)

    def check_upsampler(self, choice: UpscaleChoice, upscaler: Upscaler | LatentUpsampler) -> None:
        """Raise InvalidRequest for a model that this family can't use between its passes."""

    def enlarged(self, state: RequestState, upsampler: LatentUpsampler) -> Tensor:
        """Latents that a second pass starts from, made of those of the first, in families with the
        way "latents"."""
        raise LookupError

    @property
    def sound(self) -> bool:
        """True if results have sound."""
        return False

    @property
    def limits(self) -> Limits:
        """Maximum request size that this checkpoint supports."""
        return self.family.limits

    @property
    def parameters(self) -> tuple[str, ...]:
        """Optional sampling parameters that this checkpoint supports."""
        known = self.family.parameters
        if self.guidance.scale_name is not None:
            return known
        return tuple(name for name in known if name not in GUIDANCE_PARAMETERS)

    @property
    def no_effect(self) -> tuple[str, ...]:
        """Sampling parameters that every model accepts, and that change nothing here."""
        starts = {"image-to-image", "inpainting"} & {*self.tasks} or self.defaults.strength
        taken = {
            "guidance_scale": self.takes_scale,
            "negative_prompt": self.takes_negative,
            "strength": bool(starts),
        }
        return tuple(name for name, is_taken in taken.items() if not is_taken)

    @property
    def takes_scale(self) -> bool:
        """True if `guidance_scale` changes results."""
        return self.guidance.scale_name == "guidance_scale" or self.embeds_guidance

    @property
    def takes_negative(self) -> bool:
        """True if `negative_prompt` changes results."""
        scaled_by = self.guidance.scale_name
        return scaled_by == "guidance_scale" or scaled_by in self.parameters

    @property
    def embeds_guidance(self) -> bool:
        """True if the denoiser takes `guidance_scale` as an input."""
        return False

    @property
    def required(self) -> tuple[str, ...]:
        """Parameters, of these, that name an input that each request must have."""
        return ()

    @property
    def own_controls(self) -> tuple[str, ...]:
        """Names of controls that the checkpoint has, in place of those in the operator's folder."""
        return ()

    @property
    def picture_size(self) -> PictureSize:
        """Output size of a request that has a picture but no size."""
        return self.family.picture_size

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Short names of the solvers that a request may choose, the checkpoint's own first."""
        own = default_solver_name(self.scheduler_config)
        return (own, *(name for name in solver_names(self.scheduler_config) if name != own))

    @property
    def noise_schedules(self) -> tuple[str, ...]:
        """Noise schedules that a request may choose with at least one of the solvers."""
        if self.scheduler_config.get("invert_sigmas"):
            return (OWN_SPACING,)
        return noise_schedules_of(self.schedulers, [view_of(self.scheduler_config)])

    @property
    def schedule_parameters(self) -> tuple[str, ...]:
        """Optional sampling parameters that follow from what the model predicts."""
        return SCHEDULE_PARAMETERS[view_of(self.scheduler_config)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Differences from the checkpoint's settings."""
        warning = replacement_warning(self.scheduler_config)
        return (*(() if warning is None else (warning,)), *self.unpacked)
