"""Runs any pipeline of diffusers in the table unchanged: the fallback without a native family."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, get_args, get_type_hints

import diffusers
import msgspec
import torch

from multimodal_gen.configs.families.components import ComponentSpec
from multimodal_gen.configs.families.fallback import FALLBACK
from multimodal_gen.configs.families.library_pipelines import LIBRARY_TABLE, LibraryPipeline
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.model_info import Defaults, Limits, PictureSize, TaskName
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.runtime.loader.allowed import ALL_SCHEDULERS, ALLOWED
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.pipelines.fallback.call import start_call
from multimodal_gen.runtime.pipelines.fallback.library_parts import (
    guidance_of,
    is_loaded,
    options_of,
    trained_multiples,
)
from multimodal_gen.runtime.pipelines.fallback.signature import CallSignature
from multimodal_gen.runtime.pipelines.fallback.solver import LibrarySolver
from multimodal_gen.runtime.pipelines.fallback.stepped_pipeline import SteppedPipeline
from multimodal_gen.runtime.pipelines.trained_size import trained_size
from multimodal_gen.runtime.stages.request_state import RequestState

_DENOISERS = ("transformer", "unet")
_STEERING = ("controlnet", "adapter")
_FROM_PICTURES = frozenset({"image-to-image", "inpainting", "video-to-video"})
"""Tasks that start from pictures, by strength; elsewhere it means something else."""


class FallbackPipeline(SteppedPipeline):
    """One pipeline class of diffusers; each checkpoint gets a subclass for its class.

    A request runs inside one call of the library, which gets control for one step at a time: up to
    its loop when the request is prepared, one evaluation per step, and the remainder when it is
    decoded.
    """

    family = FALLBACK
    library_class: ClassVar[type[Any]]
    entry: ClassVar[LibraryPipeline]
    signature: ClassVar[CallSignature]

    def __init__(self, *args: Any, options: Mapping[str, Any]) -> None:
        super().__init__(*args)
        kind = getattr(diffusers, self.scheduler_config["_class_name"])
        parts = {**self.components, "scheduler": kind.from_config(self.scheduler_config)}
        left_out = _left_out(self.library_class, parts)
        self._stock = self.library_class(**parts, **left_out, **options)
        self._stock.set_progress_bar_config(disable=True)
        default = self.defaults.num_frames
        self._multiples = trained_multiples(self._stock, self.entry, default)
        self.defaults = _rounded(self.defaults, self._multiples[0])

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[Self]:
        name = checkpoint.pipeline_class
        library_class = getattr(diffusers, name)
        entry = LIBRARY_TABLE.pipelines[name]
        loaded = {
            part: ComponentSpec(ALLOWED[library, class_name], (class_name,), home=library)
            for part, (library, class_name) in checkpoint.components.items()
            if is_loaded(library_class, part) and ALLOWED.get((library, class_name)) != "unused"
        }
        attributes = {
            "library_class": library_class,
            "entry": entry,
            "signature": CallSignature(library_class, entry),
            "family": replace(FALLBACK, components=loaded),
            "denoiser_name": next((part for part in _DENOISERS if part in loaded), ""),
        }
        return type(cls.__name__, (cls,), {"__module__": __name__, **attributes})

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        name, kind = checkpoint.pipeline_class, cls.library_class
        missing = _left_out(kind, {**cls.family.components, "scheduler": None})
        optional = kind._optional_components
        needed = sorted(each for each in missing if each not in optional and is_loaded(kind, each))
        if needed:
            raise InvalidCheckpoint(f"model_index.json: {name} needs a {', a '.join(needed)}")
        if not cls.denoiser_name:
            raise InvalidCheckpoint(f"model_index.json: has neither of {', '.join(_DENOISERS)}")
        denoisers = _denoisers(cls.library_class, cls.denoiser_name)
        checkpoint.require(cls.denoiser_name, tuple(denoisers))

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"options": options_of(cls.library_class, checkpoint)}

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return checkpoint.scheduler_config(ALL_SCHEDULERS)

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Defaults of the call's signature; the model's size if the signature has none."""
        signature, base = cls.signature, FALLBACK.defaults
        if "vae" in checkpoint.components:
            base = trained_size(FALLBACK, checkpoint, cls.denoiser_name)
        width, height = cls.entry.size or (base.width, base.height)
        values = {
            "width": signature.default("width", int) or width,
            "height": signature.default("height", int) or height,
            "num_inference_steps": signature.default("num_inference_steps", int),
            "num_frames": signature.default("num_frames", int) or cls._trained_frames(checkpoint),
            "fps": cls.entry.fps,
            "guidance_scale": guidance_of(checkpoint, signature),
            "true_cfg_scale": signature.default("true_cfg_scale", float),
            "max_sequence_length": signature.default("max_sequence_length", int),
            "guidance_scale_2": signature.default("guidance_scale_2", float),
            "decode_timestep": signature.default("decode_timestep", float),
        }
        if not set(cls.entry.tasks) - _FROM_PICTURES - {"text-to-image"}:
            values["strength"] = values["inpainting_strength"] = signature.default(
                "strength", float
            )
        known = {name: value for name, value in values.items() if value is not None}
        return msgspec.structs.replace(base, **known)

    @classmethod
    def _trained_frames(cls, checkpoint: Checkpoint) -> int | None:
        found = checkpoint.config(cls.denoiser_name).get("num_frames")
        return found if isinstance(found, int) and cls.entry.fps else cls.entry.num_frames

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return self.entry.tasks

    @property
    def parameters(self) -> tuple[str, ...]:
        own = [name for name in FALLBACK.parameters if self.signature.takes(name)]
        own += ["num_frames"] if "video" in self.entry.inputs else []
        given = [f"{name}_path" for name in ("last_image", "video") if name in self.entry.inputs]
        return tuple(dict.fromkeys((*own, *given, *(("fps",) if self.entry.fps else ()))))

    @property
    def no_effect(self) -> tuple[str, ...]:
        """Also how LTX-Video's results are decoded, unless its VAE is told the noise level."""
        config = getattr(self.components.get("vae"), "config", {})
        told = config.get("timestep_conditioning", True)
        decoding = ("decode_timestep", "decode_noise_scale")
        idle = () if told else tuple(name for name in decoding if self.signature.takes(name))
        return (*super().no_effect, *idle)

    @property
    def takes_scale(self) -> bool:
        return self.signature.takes("guidance_scale") or "guider" in self.components

    @property
    def takes_negative(self) -> bool:
        return self.signature.takes("negative_prompt")

    @property
    def limits(self) -> Limits:
        return msgspec.structs.replace(
            FALLBACK.limits, max_images=self.entry.images, max_controls=1
        )

    @property
    def picture_size(self) -> PictureSize:
        """`own` where the pictures say how large the output is."""
        return "area" if self.signature.takes("width") else "own"

    @property
    def size_multiple(self) -> int:
        return self._multiples[0]

    def solver(self, params: SamplingParams, generator: torch.Generator) -> LibrarySolver:
        """One for a request without pictures, not started: the call sets its own schedule."""
        return self._solver(params, {}, generator)

    def _solver(
        self, params: SamplingParams, pictures: Pixels, generator: torch.Generator, **options: bool
    ) -> LibrarySolver:
        given = self.signature.pictures(pictures, params) | self.signature.steering(params.control)
        begin = partial(start_call, self._stock, self.signature, params, given, generator)
        return LibrarySolver(partial(begin, **options), params, self.signature.named_in)

    def prepare(self, state: RequestState) -> None:
        """Start the call: it encodes the prompt and draws the noise, up to its loop."""
        self._check_pictures(state.pictures)
        shown = state.req.previews and self.context.mesh.rank == 0
        state.solver = solver = self._solver(
            state.params, state.pictures, state.generator, previews=shown
        )
        self._start(state, solver)
        state.latents = torch.empty(1, 0)  # known after the first step

    def _check_pictures(self, pictures: Pixels) -> None:
        """Raise InvalidRequest unless each of the call's pictures is there once."""
        inputs, control, given = self.entry.inputs, self.entry.control, "control_1" in pictures
        for name in ("image", "image_2"):
            steers = inputs.get(name) == control and given
            if steers and name in pictures:
                allowed = f"either a picture of {self.own_controls[0]}, or one in image_path"
                raise InvalidRequest("control", "a second picture", allowed)
            needed = name == "image_2" or given
            if needed and name in inputs and not steers and name not in pictures:
                wanted = ", ".join(inputs[each] for each in ("image", "image_2") if each in inputs)
                raise InvalidRequest("image_path", f"{len(pictures)} images", f"must be {wanted}")

    @property
    def own_controls(self) -> tuple[str, ...]:
        """The component that steers, if there is one."""
        if self.entry.control is None:
            return ()
        parts = [name for name in _STEERING if name in self.components]
        return tuple(parts[:1]) or ("control",)

    @property
    def frame_multiple(self) -> int:
        return self._multiples[1]


def _left_out(library_class: type[Any], parts: Mapping[str, Any]) -> dict[str, None]:
    """Required constructor arguments that the checkpoint lacks, each as None."""
    parameters = inspect.signature(library_class).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty]
    return {name: None for name in needed if name not in parts}


def _denoisers(library_class: type[Any], part: str) -> list[str]:
    """Classes that the constructor declares for its denoiser."""
    hint = get_type_hints(library_class.__init__)[part]
    return [each.__name__ for each in get_args(hint) or (hint,) if each is not type(None)]


def _rounded(defaults: Defaults, multiple: int) -> Defaults:
    """Defaults with a size that its model can make."""
    sides = (defaults.width, defaults.height)
    width, height = (max(side // multiple, 1) * multiple for side in sides)
    return msgspec.structs.replace(defaults, width=width, height=height)


PIPELINE = FallbackPipeline
