"""Runs any allow-listed modular pipeline of diffusers with the library's own blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import diffusers
import msgspec
import torch
from diffusers.guiders.guider_utils import BaseGuidance

from multimodal_gen.checkpoints.files import check_sizes
from multimodal_gen.configs.families.components import ComponentSpec
from multimodal_gen.configs.families.modular import MODULAR, MODULAR_PIPELINES, LibraryBlocks
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults, Limits, TaskName
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.loader.allowed import ALLOWED, are_alike
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import library_class
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.fallback.solver import LibrarySolver
from multimodal_gen.runtime.pipelines.fallback.stepped_pipeline import SteppedPipeline, solver_of
from multimodal_gen.runtime.pipelines.modular.block_call import phases_of, start_blocks
from multimodal_gen.runtime.pipelines.modular.block_inputs import BlockInputs, task_of
from multimodal_gen.runtime.pipelines.modular.guiders import guider_parameters, own_guider
from multimodal_gen.runtime.stages.request_state import RequestState

_DENOISERS = ("transformer", "unet")


class ModularPipeline(SteppedPipeline):
    """One modular pipeline class of diffusers; each checkpoint gets a subclass for its class.

    A request's blocks run up to the loop when it is prepared, one step per evaluation, and the
    remainder when it is decoded. The components of a block come to the device before it runs.
    """

    family = MODULAR
    library_class: ClassVar[type[Any]]
    blocks: ClassVar[Any]
    inputs: ClassVar[BlockInputs]
    entry: ClassVar[LibraryBlocks]
    done: ClassVar[tuple[TaskName, ...]]
    """Tasks whose components the checkpoint has."""

    def __init__(self, *args: Any, options: Mapping[str, Any]) -> None:
        super().__init__(*args)
        kind = _on_device(self.library_class, self.context.device)
        self._stock = kind(blocks=self.blocks)
        self._stock.update_components(**options)
        for name, component in self.components.items():
            setattr(self._stock, name, component)

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[Self]:
        name = checkpoint.pipeline_class
        library_class = getattr(diffusers, name)
        entry = MODULAR_PIPELINES[name]
        blocks = getattr(diffusers, library_class.default_blocks_name)()
        for each in entry.left_out:
            blocks.sub_blocks.pop(each)
        inputs, known = BlockInputs(blocks), {each.name for each in blocks.expected_components}
        loaded = {
            part: ComponentSpec(ALLOWED[library, class_name], (class_name,), home=library)
            for part, (library, class_name) in checkpoint.components.items()
            if part in known and ALLOWED.get((library, class_name), "unused") != "unused"
        }
        tasks = inputs.tasks()
        attributes = {
            "library_class": library_class,
            "blocks": blocks,
            "inputs": inputs,
            "entry": entry,
            "done": tuple(task for task, needed in tasks.items() if loaded.keys() >= set(needed)),
            "family": replace(MODULAR, components=loaded),
            "denoiser_name": next((part for part in _DENOISERS if part in loaded), ""),
        }
        return type(cls.__name__, (cls,), {"__module__": __name__, **attributes})

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if not cls.done:
            needed = next(iter(cls.inputs.tasks().values()))
            missing = [part for part in needed if part not in cls.family.components]
            raise InvalidCheckpoint(
                f"{checkpoint.index}: {checkpoint.pipeline_class} needs a {', a '.join(missing)}, "
                "each in a folder of its own in the checkpoint"
            )
        wanted = {each.name: each.type_hint for each in cls.blocks.expected_components}
        for name, (library, class_name) in checkpoint.components.items():
            hint, kind = wanted.get(name), ALLOWED.get((library, class_name))
            if hint is None or kind not in ("diffusers", "native", "scheduler"):
                continue
            fits = issubclass(library_class(library, class_name), hint)
            if not fits and not are_alike(name, class_name, hint.__name__):
                raise InvalidCheckpoint(
                    f"{checkpoint.index}: {name} is a {class_name}; "
                    f"{checkpoint.pipeline_class} requires {hint.__name__}"
                )

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        known = {each.name for each in cls.blocks.expected_configs}
        options = {key: value for key, value in checkpoint.options.items() if key in known}
        check_sizes(options, checkpoint.index)
        return {"options": options}

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Empty: the blocks use their schedulers themselves."""
        return {}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """The blocks' defaults; those of the table if they have none."""
        inputs, entry, (width, height) = cls.inputs, cls.entry, cls.entry.size
        values = {
            "width": inputs.default("width", int) or width,
            "height": inputs.default("height", int) or height,
            "num_inference_steps": inputs.default("num_inference_steps", int),
            "num_frames": inputs.default("num_frames", int) or entry.num_frames,
            "fps": inputs.default("fps", int) or entry.fps,
            "guidance_scale": inputs.default("guidance_scale", float)
            or _guider_scale(cls.blocks, "guider"),
            "guidance_scale_2": _guider_scale(cls.blocks, "guider_2"),
            "max_sequence_length": inputs.default("max_sequence_length", int),
        }
        strengths = {"image-to-image": "strength", "inpainting": "inpainting_strength"}
        for task in cls.done:
            if task in strengths:
                values[strengths[task]] = inputs.default("strength", float)
        known = {name: value for name, value in values.items() if value is not None}
        return msgspec.structs.replace(MODULAR.defaults, **known)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return self.done

    @property
    def takes_scale(self) -> bool:
        return self.inputs.takes("guidance_scale") or _guider(self.blocks, "guider") is not None

    @property
    def takes_negative(self) -> bool:
        return self.inputs.takes("negative_prompt")

    @property
    def limits(self) -> Limits:
        least, _, most = self.entry.frames
        return msgspec.structs.replace(
            self.family.limits, min_frames=least, max_frames=most, max_images=self.entry.images
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        own = [name for name in MODULAR.parameters if self.inputs.takes(name)]
        own += ["guidance_scale_2"] if self.defaults.guidance_scale_2 is not None else []
        own += guider_parameters(_guider(self.blocks, "guider"))
        own += ["last_image_path"] if self.inputs.has("last_image") else []
        own += ["video_path"] if self.inputs.has("driving_video") else []
        return tuple(dict.fromkeys((*own, *(("fps",) if self.entry.fps else ()))))

    @property
    def size_multiple(self) -> int:
        return self.entry.size_multiple

    @property
    def frame_multiple(self) -> int:
        return self.entry.frames[1]

    def prepare(self, state: RequestState) -> None:
        """Start the blocks: they encode the prompt and draw the noise, up to their loop."""
        shown = state.req.previews and self.context.mesh.rank == 0
        params, pictures = state.params, state.pictures
        task = task_of(self.done, pictures)
        inputs = self.inputs.of_request(params, pictures, task, state.generator)
        state.solver = solver = self._solver(params, inputs, previews=shown)
        self._start(state, solver)
        state.latents = torch.empty(1, 0)  # known after the first step

    def solver(self, params: SamplingParams, generator: torch.Generator) -> Solver:
        return self._solver(params, {})

    def _solver(
        self, params: SamplingParams, inputs: Mapping[str, Any], *, previews: bool = False
    ) -> LibrarySolver:
        needed: list[str] = []

        def hold(block: Any) -> None:
            needed[:] = [each for each in _names(block) if each in self.components]
            self.residency.hold(needed)

        scales = {"guider": params.guidance_scale, "guider_2": params.guidance_scale_2}

        def guider(name: str, given: BaseGuidance) -> BaseGuidance:
            return own_guider(given, scales.get(name), params)

        begin = partial(start_blocks, self._stock, inputs, guider, hold, previews=previews)
        solver = LibrarySolver(begin, params, self.inputs.named_in)
        solver.needed = needed
        return solver

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Components of these kinds alone: those of a block are held before it runs."""
        return ComposedPipeline.components_of_kind(self, *kinds)

    def denoisers_now(self, states: Sequence[RequestState]) -> tuple[str, ...]:
        """Components of the loops that these requests are in."""
        return tuple(dict.fromkeys(name for state in states for name in solver_of(state).needed))

    @classmethod
    def needed_together(cls, names: Sequence[str]) -> list[tuple[Phase, tuple[str, ...]]]:
        """Components of each block."""
        found = {
            (phase, tuple(name for name in names if name in _names(block)))
            for phase, block in phases_of(cls.blocks)
        }
        return sorted(each for each in found if each[1])


def _on_device(kind: type[Any], device: torch.device) -> type[Any]:
    """A pipeline class whose blocks make their tensors on this device, wherever its components
    are."""
    own = property(lambda pipeline: device)
    return type(kind.__name__, (kind,), {"device": own, "_execution_device": own})


def _names(block: Any) -> list[str]:
    return [each.name for each in block.expected_components]


def _guider(blocks: Any, name: str) -> BaseGuidance | None:
    """A guider that the blocks create, if they do."""
    for each in blocks.expected_components:
        if each.name == name and each.default_creation_method == "from_config":
            guider: BaseGuidance = each.create()
            return guider
    return None


def _guider_scale(blocks: Any, name: str) -> float | None:
    """Default guidance scale of a guider that the blocks create."""
    guider = _guider(blocks, name)
    scale = None if guider is None else guider.config.get("guidance_scale")
    return None if scale is None else float(scale)


PIPELINE = ModularPipeline
