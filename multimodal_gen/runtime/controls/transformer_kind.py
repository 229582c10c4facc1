"""Kinds of control networks that are made of this project's transformers' blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.controls.control import (
    Control,
    ControlDescription,
    ControlKind,
    ControlTarget,
)
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.models.dits.config import TransformerConfig

AnyConfig = TypeVar("AnyConfig", bound=TransformerConfig)


class TransformerKind(ControlKind, Generic[AnyConfig]):
    """A kind whose networks have config `AnyConfig`, in the library's layout."""

    class_name: ClassVar[str]
    """The library's class of the network."""
    own_tensors: ClassVar[Sequence[str]]
    """Names by which a file without config is known."""
    model_class: ClassVar[str]
    """The library's class of the model that is steered."""
    model_title: ClassVar[str]
    equal: ClassVar[Sequence[str]]
    """Fields of the config in which network and model agree."""
    config_class: type[AnyConfig]
    make: Callable[[AnyConfig, Parts], nn.Module]
    key_map: Callable[[AnyConfig], Mapping[str, tuple[str, ...]]]

    def reads(self, described: ControlDescription) -> bool:
        if described.class_name:
            return described.class_name == self.class_name
        return described.header.tensors.keys() >= {*self.own_tensors}

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        if target.class_name != self.model_class:
            return f"is a ControlNet for {self.model_title}"
        config = self.config(described, target)
        for name in self.equal:
            own, wanted = getattr(config, name), target.config[name]
            if own != wanted:
                return f"is a ControlNet for a {self.model_title} with {name}={own}, not {wanted}"
        return None

    def config(self, described: ControlDescription, target: ControlTarget) -> AnyConfig:
        """Read the network's config, or make it from the model's and the file's tensors. Raises
        InvalidCheckpoint."""
        with _of_the_control():
            return self.config_class.from_dict(self.fields(described, target))

    def fields(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        """Content of config.json, or what stands for it."""
        if described.config:
            return dict(described.config)
        return {**target.config, **self.found(described, target)}

    @abstractmethod
    def found(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        """Fields of the config that a file without one shows by its tensors."""

    @abstractmethod
    def control(self, network: Any, target: ControlTarget) -> Control:
        """The control of a loaded network."""

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        config, context = self.config(described, target), target.context
        parts = make_parts(
            context.mesh, select_attention(context.attention_backend, context.device)
        )
        with torch.device("meta"):
            network = self.make(config, parts).eval().requires_grad_(False)
        name = described.file.name
        with open_weights([described.file.weights], name) as stored:
            fill(
                network,
                stored,
                self.key_map(config),
                name=name,
                dtype=context.dtype,
                device=context.device,
            )
        return self.control(network, target)


def count(described: ControlDescription, prefix: str) -> int:
    """Number of modules `prefix.0`, `prefix.1`, … in the file."""
    start = f"{prefix}."
    names = (name for name in described.header.tensors if name.startswith(start))
    return len({name.removeprefix(start).split(".")[0] for name in names})


@contextmanager
def _of_the_control() -> Iterator[None]:
    """Say in errors that the config is the control's."""
    try:
        yield
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(error.message.removeprefix("transformer/")) from error
