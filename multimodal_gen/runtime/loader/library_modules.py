"""Creates modules of diffusers and transformers, and fills them with tensors of a checkpoint.

They are created without weights and take the file's own pages where these have the right type, so
that loading holds the weights and one piece more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers.core_model_loading import build_glob_alternation

from multimodal_gen.checkpoints.tensor_info import is_float
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.products.dense import use_dense_product
from multimodal_gen.runtime.layers.quantized.library import KeptEmbedding, KeptLinear
from multimodal_gen.runtime.loader.library_names import (
    diffusers_names,
    has_layer,
    set_layer,
    tied_layers,
    transformers_names,
    with_depth,
    with_owners,
    without_layers,
)
from multimodal_gen.runtime.loader.library_view import model_settings, module_settings
from multimodal_gen.runtime.loader.pretrained import complaints, library_class
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.stored import Stored, assemble
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded

log = logging.getLogger(__name__)
_SHOWN = 8


@dataclass(frozen=True)
class LibraryModule:
    """A module of diffusers or transformers that a checkpoint names."""

    library: str
    class_name: str
    config: Mapping[str, Any]
    name: str
    """The component's name in errors."""
    idle: Sequence[str] = ()
    """Layers that nothing uses; they are left out."""
    depth: int | None = None
    """Number of a language model's layers that are used; None: all."""
    quantization: WhenLoaded | None = None
    keep_narrow: bool = True
    """As for `fill`."""

    def load(
        self,
        stored: Mapping[str, Stored],
        dtype: torch.dtype,
        device: torch.device,
        loaded: Callable[[float], None] = lambda fraction: None,
    ) -> nn.Module:
        """Create the module and fill it; `loaded` as for `fill`. Raises InvalidCheckpoint."""
        module = self.outline(dtype)
        renamed = self._renamed(module, self._completed(stored))
        if renamed is None:
            module = self._converted(stored, dtype)
        else:
            self._fill(module, renamed, device, loaded)
        filled: nn.Module = module.to(device).eval().requires_grad_(False)
        use_dense_product(filled)
        return filled

    def outline(self, dtype: torch.dtype) -> Any:
        """Create the module with all parameters on the meta device. Raises InvalidCheckpoint."""
        with complaints(f"{self.name}: {self.class_name}"), _by_default(dtype):
            module = self._create(dtype)
        for name in self.idle:
            if has_layer(module, name):  # Some classes are another's part.
                set_layer(module, name, None)
        return module

    @property
    def _kind(self) -> Any:
        return library_class(self.library, self.class_name)

    @property
    def _is_diffusers(self) -> bool:
        return hasattr(self._kind, "from_config")

    def _create(self, dtype: torch.dtype) -> Any:
        """Create it with all parameters on the meta device, in the types they are to have."""
        kind, where = self._kind, f"{self.name}/config.json"
        with init_empty_weights(include_buffers=False):
            if self._is_diffusers:
                module = kind.from_config(module_settings(kind, self.config, where))
                _cast(module, dtype)
                _cast(module, torch.float32, _parts(kind._keep_in_fp32_modules or ()))
                return module
            settings = model_settings(kind, self.config, where)
            config = kind.config_class.from_dict(self._cut(settings))
            module = kind._from_config(config, dtype=dtype)
            if exact := [*module._get_dtype_plan(dtype)]:
                _cast(module, torch.float32, build_glob_alternation(exact)[0].search)
            return module

    def _cut(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings of a language model, alone or inside a vision language model, without the
        layers that are not used."""
        if self.depth is None:
            return settings
        if isinstance(nested := settings.get("text_config"), dict):
            return {**settings, "text_config": self._cut(dict(nested))}
        found = settings.get("num_hidden_layers", self.depth)
        settings["num_hidden_layers"] = min(self.depth, found)
        if isinstance(types := settings.get("layer_types"), list):
            settings["layer_types"] = types[: self.depth]
        return settings

    def _completed(self, stored: Mapping[str, Stored]) -> Mapping[str, Stored]:
        """Add the projection without effect that Stable Diffusion 3's files may omit: it pools
        CLIP-L without one."""
        width = self.config.get("hidden_size")
        if (
            "text_projection.weight" in stored
            or not self.class_name.endswith("WithProjection")
            or width is None
            or width != self.config.get("projection_dim")
        ):
            return stored
        return {**stored, "text_projection.weight": HeldTensor(torch.eye(int(width)))}

    def _renamed(self, module: Any, stored: Mapping[str, Stored]) -> dict[str, Stored] | None:
        if self._is_diffusers:
            return without_layers(diffusers_names(module, stored), self.idle)
        renamed = transformers_names(module, stored)
        if renamed is None:
            return None
        named = without_layers(with_owners(module, renamed), self.idle)
        return named if self.depth is None else with_depth(named, self.depth)

    def _fill(
        self,
        module: nn.Module,
        stored: dict[str, Stored],
        device: torch.device,
        loaded: Callable[[float], None],
    ) -> None:
        tied = tied_layers(module, stored)
        sharers = {name: module.get_submodule(name) for name in tied}
        for name in tied:
            set_layer(module, name, None)
        wanted = module.state_dict().keys()
        if unused := sorted(stored.keys() - wanted):
            log.warning("%s: unused weights: %s", self.name, unused[:_SHOWN])
        own = {key: each for key, each in stored.items() if key in wanted}
        fill(
            module,
            own,
            {key: (key,) for key in wanted},
            name=self.name,
            device=device,
            quantization=self.quantization,
            keep_narrow=self.keep_narrow,
            loaded=loaded,
        )
        for name, owner in tied.items():
            set_layer(module, name, _sharing(sharers[name], module.get_submodule(owner)))

    def _converted(self, stored: Mapping[str, Stored], dtype: torch.dtype) -> nn.Module:
        """Load with the library's own loader, which computes tensors from others: this holds the
        weights twice."""
        state = {key: _whole(each) for key, each in stored.items() if is_float(each.dtype)}
        with complaints(f"{self.name}: {self.class_name}"):
            settings = model_settings(self._kind, self.config, f"{self.name}/config.json")
            module, info = self._kind.from_pretrained(
                None,
                config=self._kind.config_class.from_dict(settings),
                state_dict=state,
                dtype=dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        self._check(info)
        assert isinstance(module, nn.Module)
        return module

    def _check(self, info: Mapping[str, Any]) -> None:
        wrong = {
            what: sorted(str(key) for key in info.get(f"{what}_keys") or ())
            for what in ("missing", "mismatched")
        }
        listed = [f"{what}: {', '.join(keys[:_SHOWN])}" for what, keys in wrong.items() if keys]
        if listed:
            raise InvalidCheckpoint(
                f"{self.name}: the weights don't match config.json: {'; '.join(listed)}"
            )
        if info.get("unexpected_keys"):
            unused = sorted(info["unexpected_keys"])
            log.warning("%s: unused weights: %s", self.name, unused[:_SHOWN])


@contextmanager
def _by_default(dtype: torch.dtype) -> Iterator[None]:
    """Create tensors in `dtype` unless told otherwise, as the libraries do while loading."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _sharing(layer: Any, owner: nn.Module) -> Any:
    """`layer`, a head or an embedding, with the weight of `owner`."""
    if isinstance(owner, type(layer)):
        return owner
    if isinstance(owner, KeptEmbedding):
        return KeptLinear(owner.kept, layer.bias)
    layer.weight = owner.weight
    return layer


def _parts(names: Sequence[str]) -> Callable[[str], bool]:
    return lambda key: any(part in names for part in key.split("."))


def _cast(
    module: nn.Module, dtype: torch.dtype, wanted: Callable[[str], object] = lambda key: True
) -> None:
    """Cast the floating-point tensors of a module's state whose names are `wanted`."""
    state = module.state_dict().items()
    cast = {key: each.to(dtype) for key, each in state if each.is_floating_point() and wanted(key)}
    module.load_state_dict(cast, strict=False, assign=True)


def _whole(tensor: Stored) -> Tensor:
    """Read in the file's own precision: the library decides which parts are cast."""
    plain = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}
    dtype = plain.get(tensor.dtype, torch.float32)
    return assemble([tensor], torch.Size(tensor.shape), dtype, torch.device("cpu"))
