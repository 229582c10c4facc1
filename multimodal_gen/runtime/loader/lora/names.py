"""Finds the modules of a pipeline by the names that LoRA files have for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from multimodal_gen.runtime.loader.original.names import OriginalNames

_DENOISER = re.compile(r"(?:lora_unet|lora_transformer|lycoris)__?")
_WRAPPERS = ("base_model.model.", "model.", "diffusion_model.", "unet.", "pipe.", "dit.")
_MOST_WRAPPERS = 3
_ENCODERS = (
    (re.compile(r"lora_te1?_|text_encoder\.|text_encoders\.clip_l\.(?:transformer\.)?"), 1),
    (re.compile(r"lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.(?:transformer\.)?"), 2),
    (re.compile(r"lora_te3_|text_encoder_3\."), 3),
    (re.compile(r"text_encoders\.\w+\.(?:transformer\.)?"), 0),
)
"""Prefixes of kohya, OneTrainer, diffusers and ComfyUI, and the number of the text encoder."""


class LoraPlace(NamedTuple):
    """Modules of diffusers that one module of a file stands for: their rows follow one another."""

    component: str
    modules: tuple[str, ...]
    swapped: bool = False
    """The halves of its rows are in the other order in the file."""
    head: int = 0
    """Rows of a head, if the file has a head's rows of each module before those of the next."""


class Names:
    """Modules that a LoRA may have weights for, by component, the denoiser first."""

    def __init__(self, modules: Mapping[str, Collection[str]], originals: OriginalNames) -> None:
        """`originals` are further names of the denoiser's modules."""
        self._denoiser = next(iter(modules))
        own = {name: dict(_places(name, known)) for name, known in modules.items()}
        own[self._denoiser] |= _places(self._denoiser, originals.siblings)
        own[self._denoiser] |= {
            name: LoraPlace(self._denoiser, *original) for name, original in originals.names.items()
        }
        self._places = {component: _flat(places) | places for component, places in own.items()}

    def find(self, name: str, wanted: str | None = None) -> LoraPlace | None:
        """Return the place of a module by its name in a file, in component `wanted` if the name
        does not say which."""
        if (encoder := _encoder(name)) is not None:
            component, rest = encoder
            encoders = [each for each in self._places if each.startswith("text_encoder")]
            return self._first([component] if component in encoders else encoders, rest)
        if match := _DENOISER.match(name):
            return self._first([self._denoiser], name[match.end() :])
        for plain in _unwrapped(name):
            component, _, rest = plain.partition(".")
            if component in self._places:
                return self._first([component], rest)
            in_order = sorted(self._places, key=lambda component: component != wanted)
            if (found := self._first(in_order, plain)) is not None:
                return found
        return None

    def lacks_encoder(self, name: str) -> bool:
        """True if a name is for a text encoder that the checkpoint does not have."""
        encoder = _encoder(name)
        return encoder is not None and encoder[0] not in self._places

    def _first(self, components: Iterable[str], name: str) -> LoraPlace | None:
        for component in components:
            for spelled in _spellings(name):
                if (found := self._places[component].get(spelled)) is not None:
                    return found
        return None


def _encoder(name: str) -> tuple[str, str] | None:
    """Text encoder that a name is for, and the rest of the name; None for other names."""
    for prefix, number in _ENCODERS:
        if match := prefix.match(name):
            component = "text_encoder" if number == 1 else f"text_encoder_{number}"
            return component, name[match.end() :]
    return None


def _places(component: str, modules: Collection[str]) -> Iterator[tuple[str, LoraPlace]]:
    """Places by name; versions of transformers differ in whether CLIP's layers are in
    `text_model`."""
    for module in modules:
        place = LoraPlace(component, (module,))
        yield module, place
        if component.startswith("text_encoder"):
            short = module.removeprefix("text_model.")
            yield from ((short, place), (f"text_model.{short}", place))


def _flat(places: Mapping[str, LoraPlace]) -> dict[str, LoraPlace]:
    """The names as kohya, OneTrainer and LyCORIS write them."""
    return {name.replace(".", "_"): place for name, place in places.items()}


def _spellings(name: str) -> Iterator[str]:
    """A name, and what it is if an old version of diffusers wrote it."""
    yield name
    yield re.sub(r"self_attn\.to_(q|k|v|out)$", r"self_attn.\1_proj", name)
    yield re.sub(r"\.to_out$", ".to_out.0", name)


def _unwrapped(name: str) -> Iterator[str]:
    """A name, and what is left without one wrapper after the other."""
    yield name
    for _ in range(_MOST_WRAPPERS):
        wrapper = next((each for each in _WRAPPERS if name.startswith(each)), None)
        if wrapper is None:
            return
        name = name.removeprefix(wrapper)
        yield name
