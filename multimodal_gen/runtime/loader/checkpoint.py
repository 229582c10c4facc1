"""A checkpoint in diffusers layout: reads its index as data, and loads components one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from multimodal_gen.checkpoints.files import (
    check_module,
    inside,
    module_config,
    read_json,
    weight_files,
)
from multimodal_gen.checkpoints.index import INDEX, INDEXES, CheckpointIndex, read_index
from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.checkpoints.scheduler_config import PATH, scheduler_config
from multimodal_gen.configs.families.components import WITH_WEIGHTS
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.configs.solver_choice import PREDICTION_TYPES
from multimodal_gen.configs.solvers import scheduler_classes
from multimodal_gen.configs.step_cache import CALIBRATED, StepCaches
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults, StatedLimits
from multimodal_gen.runtime.loader.allowed import ALLOWED, classes_like
from multimodal_gen.runtime.loader.declared_numbers import check_numbers
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.pretrained import (
    complaints,
    load_image_processor,
    load_processor,
    load_tokenizer,
    quiet,
)
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.single_file.component_files import (
    in_component_file,
    in_single_file,
)
from multimodal_gen.runtime.loader.single_file.weights import ComponentWeights
from multimodal_gen.runtime.loader.tensors.stored import Stored
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.loader.tensors.when_loaded import when_loaded

_DEFAULTS = "generation_defaults.json"
_LIMITS = "limits"
_CACHES = "step_caches.json"
ROOT_FILES = (*INDEXES, _DEFAULTS, _CACHES)
_WEIGHTS_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and index. Holds no weights."""

    folder: Path
    pipeline_class: str
    components: Mapping[str, tuple[str, str]]
    """Name -> (library, class); all are in `ALLOWED`, but for a scheduler, which a solver may
    replace."""
    options: Mapping[str, Any]
    """Pipeline settings in the index."""
    index: str = INDEX
    """Name of the index's file."""
    files: Mapping[str, ComponentWeights] = field(default_factory=dict)
    """Components whose weights are in files, in place of the folder's."""
    unused: tuple[str, ...] = ()
    """Warnings about parts of a single file that are not used."""
    quantization: Quantization | None = None
    """Form in which weights are kept that are not quantised yet."""
    loaded: Callable[[float], None] = lambda fraction: None
    """Told, now and then, which fraction of a component is loaded."""
    keep_narrow: bool = True
    """As for `fill`."""

    @classmethod
    def open(
        cls,
        folder: Path,
        file: Path | None = None,
        component_files: Mapping[str, Path] | None = None,
        quantization: Quantization | None = None,
    ) -> Checkpoint:
        """Read the index, and the headers of `file`, a single weight file that replaces the weights
        of components, and of `component_files`, each of which replaces those of one. Raises
        InvalidCheckpoint for anything missing, damaged or not allowed."""
        if not folder.is_dir():
            raise InvalidCheckpoint(f"{folder}: no such folder")
        index = read_index(folder)
        if not isinstance(index.pipeline_class, str):
            raise InvalidCheckpoint(f"{index.name}: has no _class_name")
        components = {name: _allowed(index, name) for name in index.entries}
        own = component_files or {}
        files, unused = in_single_file(file, components, str(folder), own) if file else ({}, [])
        files |= {name: _in_file(name, path, components) for name, path in own.items()}
        return cls(
            folder=folder,
            pipeline_class=index.pipeline_class,
            components=components,
            options=index.settings,
            index=index.name,
            files=files,
            unused=tuple(unused),
            quantization=quantization,
        )

    def require(self, name: str, allowed: tuple[str, ...]) -> None:
        """Check that the component exists and is of an allowed class. Raises InvalidCheckpoint."""
        if name not in self.components:
            raise InvalidCheckpoint(
                f"{self.index}: {self.pipeline_class} needs a {name} ({', '.join(allowed)})"
            )
        class_name = self.components[name][1]
        if class_name not in allowed:
            raise InvalidCheckpoint(
                f"{self.index}: {name} is a {class_name}; "
                f"{self.pipeline_class} requires {', '.join(allowed)}"
            )
        if not inside(self.folder, name).is_dir():
            raise InvalidCheckpoint(f"{name}: no such folder in {self.folder}")

    def require_width(self, name: str, parts: tuple[str, ...]) -> None:
        """Check that a width is the sum of others, such as `unet.cross_attention_dim` of its
        encoders'.

        Widths that the configs don't set are not checked. Raises InvalidCheckpoint.
        """
        width, *others = (self._width(part) for part in (name, *parts))
        if any(not isinstance(each, int) for each in (width, *others)) or width == sum(others):
            return
        found = " + ".join(f"{part}={each}" for part, each in zip(parts, others, strict=True))
        raise InvalidCheckpoint(f"config.json: {name}={width} does not match {found}")

    def _width(self, part: str) -> Any:
        component, *outer, key = part.split(".")
        config = self.config(component)
        for name in outer:
            inner = config.get(name)
            config = inner if isinstance(inner, dict) else {}
        return config.get(key)

    def config(self, name: str) -> dict[str, Any]:
        """Read config.json of a component; what its own file states differently counts."""
        config = module_config(self.folder, name)
        if name not in self.files:
            return config
        config = self.files[name].config(self.components[name][1], config)
        check_module(config, name, self.files[name].called)
        return config

    def scheduler_config(self, allowed: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Read scheduler_config.json. Its class is the index's; by default it may be any, since a
        solver replaces an unknown one."""
        own = [self.components[name][1] for name in ("scheduler",) if name in self.components]
        self.require("scheduler", allowed or (*own, *scheduler_classes()))
        config = scheduler_config(self.folder, own[0])
        if own[0] in scheduler_classes():  # not one that a solver replaces
            check_numbers(getattr(quiet("diffusers"), own[0]), config, PATH)
        for weights in self.files.values():
            config |= weights.scheduler_settings
        predicts = config.get("prediction_type")
        if allowed is None and predicts not in (None, *PREDICTION_TYPES):
            known = ", ".join(PREDICTION_TYPES)
            raise InvalidCheckpoint(f"{PATH}: prediction_type={predicts!r} must be one of {known}")
        return config

    def load(
        self,
        name: str,
        dtype: torch.dtype,
        device: torch.device,
        idle: Sequence[str] = (),
        depth: int | None = None,
    ) -> Any:
        """Load a tokenizer, a processor, or a module of diffusers or transformers without the
        layers `idle`, and those of a language model from number `depth` on.

        On the meta device a module is made without weights, and anything else is None.
        """
        library, class_name = self.components[name]
        kind = ALLOWED[library, class_name]
        if device.type == "meta" and kind not in WITH_WEIGHTS:
            return None
        if kind == "tokenizer":
            return load_tokenizer(self.folder, name, class_name)
        if kind == "image_processor":
            return load_image_processor(self.folder, name, class_name)
        if kind == "processor":
            return load_processor(self.folder, name, class_name)
        if inside(self.folder, f"{name}/adapter_config.json").exists():
            raise InvalidCheckpoint(
                f"{name}/adapter_config.json: adapters inside a checkpoint are not read"
            )
        config, called = self.config(name), self._called(name)
        quantization = when_loaded(name, self.quantization)
        module = LibraryModule(
            library, class_name, config, called, idle, depth, quantization, self.keep_narrow
        )
        if device.type == "meta":
            return module.outline(dtype)
        with self._tensors(name) as stored:
            return module.load(stored, dtype, device, self.loaded)

    def load_native(
        self,
        name: str,
        make: Callable[[], nn.Module],
        key_map: Mapping[str, tuple[str, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> nn.Module:
        """Load one of our modules: created by `make` on the meta device, with strict weights."""
        with complaints(f"{name}/config.json"), torch.device("meta"):
            module = make().eval().requires_grad_(False)
        with self._tensors(name) as stored:
            fill(
                module,
                stored,
                key_map,
                name=self._called(name),
                dtype=dtype,
                device=device,
                loaded=self.loaded,
                keep_narrow=self.keep_narrow,
                quantization=when_loaded(name, self.quantization),
            )
        return module

    def size(self, name: str) -> int:
        """Bytes of a component's weights in their files; 0 for a tokenizer and the like."""
        if name in self.files:
            return self.files[name].size
        return sum(path.stat().st_size for path in self.weight_paths(name))

    def weight_paths(self, name: str) -> tuple[Path, ...]:
        """Files of a component's weights in the folder; none for a tokenizer and the like."""
        library, class_name = self.components[name]
        if ALLOWED.get((library, class_name)) not in WITH_WEIGHTS:
            return ()
        return weight_files(self.folder, name, _weights_stem(library, class_name)).paths

    def _called(self, name: str) -> str:
        """Name of a component's weights in errors."""
        return self.files[name].called if name in self.files else name

    @contextmanager
    def _tensors(self, name: str) -> Iterator[Mapping[str, Stored]]:
        """Yield a component's tensors under diffusers' names, from the folder or the file."""
        library, class_name = self.components[name]
        if name in self.files:
            with self.files[name].tensors(class_name, self.config(name)) as stored:
                yield stored
            return
        files = weight_files(self.folder, name, _weights_stem(library, class_name))
        with open_weights(files.paths, name, quantization_settings(self.folder, name)) as stored:
            yield stored

    @property
    def _stated(self) -> dict[str, Any]:
        """Defaults, and limits by the key "limits"."""
        known = inside(self.folder, _DEFAULTS).is_file()
        return read_json(self.folder, _DEFAULTS) if known else {}

    def limits(self) -> StatedLimits:
        """Limits that the checkpoint states itself."""
        try:
            return msgspec.convert(self._stated.get(_LIMITS, {}), StatedLimits)
        except msgspec.ValidationError as error:
            known = ", ".join(StatedLimits.__struct_fields__)
            told = f"{_DEFAULTS}: {_LIMITS}: {error}; allowed: {known}"
            raise InvalidCheckpoint(told) from error

    def defaults(self, family: Defaults) -> Defaults:
        """The family's defaults, overridden by generation_defaults.json."""
        own = {key: value for key, value in self._stated.items() if key != _LIMITS}
        needed = msgspec.structs.asdict(family)
        for name, value in own.items():
            if value is None and needed.get(name) is not None:
                raise InvalidCheckpoint(f"{_DEFAULTS}: {name}=null: this model needs a value")
        try:
            return msgspec.convert({**needed, **own}, Defaults)
        except msgspec.ValidationError as error:
            known = ", ".join((*Defaults.__struct_fields__, _LIMITS))
            raise InvalidCheckpoint(f"{_DEFAULTS}: {error}; allowed: {known}") from error

    def step_caches(self, family: StepCaches) -> StepCaches:
        """The family's rules, overridden by step_caches.json; families without any have none."""
        if not family or not inside(self.folder, _CACHES).is_file():
            return family
        try:
            return {**family, **msgspec.convert(read_json(self.folder, _CACHES), CALIBRATED)}
        except msgspec.ValidationError as error:
            raise InvalidCheckpoint(f"{_CACHES}: {error}") from error


def _weights_stem(library: str, class_name: str) -> str:
    return "model" if ALLOWED[library, class_name] == "transformers" else _WEIGHTS_STEM


def _in_file(name: str, path: Path, components: Mapping[str, tuple[str, str]]) -> ComponentWeights:
    """Open the file of one component. Raises InvalidCheckpoint."""
    with_weights = [each for each, own in components.items() if ALLOWED.get(own) in WITH_WEIGHTS]
    if name not in with_weights:
        raise InvalidCheckpoint(
            f"component={name}={path.name}: {name} must be one of {', '.join(with_weights)}"
        )
    return in_component_file(name, path, components)


def _allowed(index: CheckpointIndex, name: str) -> tuple[str, str]:
    value = index.entries[name]
    if len(value) != 2 or not all(isinstance(part, str) for part in value):
        raise InvalidCheckpoint(f"{index.name}: {name}={value!r} must be a library and a class")
    library, class_name = value
    if (library, class_name) not in ALLOWED and name != "scheduler":
        like = classes_like(class_name, name)
        said = f"; allowed are {', '.join(like)}" if like else ""
        raise InvalidCheckpoint(
            f"{index.name}: {name}={library}.{class_name} is not an allowed class{said}"
        )
    return library, class_name
