"""Components of a family's checkpoints, and the library classes allowed for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "native",
    "diffusers",
    "transformers",
    "tokenizer",
    "image_processor",
    "processor",
    "scheduler",
    "guider",
    "unused",
]
"""Loading method of a component: as a module of this project, or by a library, with its type."""
WITH_WEIGHTS: tuple[Kind, ...] = ("native", "diffusers", "transformers")
_OF_DIFFUSERS = ("native", "diffusers", "scheduler", "guider")


@dataclass(frozen=True)
class ComponentSpec:
    """One component: its kind, and the classes that a checkpoint may name for it."""

    kind: Kind
    classes: tuple[str, ...]
    optional: bool = False
    """True if a checkpoint may lack it."""
    idle: tuple[str, ...] = ()
    """Layers of it, by name, that no request of the family uses."""
    depth: int | None = None
    """Number of a language model's layers that requests use; None: all."""
    home: str | None = None
    """Library of its classes as model_index.json has it, where the kind does not say it: a folder
    of diffusers' pipelines, such as `ltx2`."""
    resident: tuple[str, ...] = ()
    """Repeated layers of it, by name, that stay on the device where its blocks are streamed."""

    @property
    def has_weights(self) -> bool:
        """True for a module."""
        return self.kind in WITH_WEIGHTS

    @property
    def library(self) -> str:
        """Library of its classes, as in model_index.json."""
        if self.home is not None:
            return self.home
        return "diffusers" if self.kind in _OF_DIFFUSERS else "transformers"


def native(*classes: str, optional: bool = False, resident: tuple[str, ...] = ()) -> ComponentSpec:
    """A denoiser implemented in this project, with its classes in diffusers."""
    return ComponentSpec("native", classes, optional, resident=resident)


def module(*classes: str, optional: bool = False, home: str | None = None) -> ComponentSpec:
    """Return the spec of a diffusers module."""
    return ComponentSpec("diffusers", classes, optional, home=home)


def encoder(
    *classes: str,
    optional: bool = False,
    idle: tuple[str, ...] = (),
    depth: int | None = None,
) -> ComponentSpec:
    """Return the spec of a transformers model."""
    return ComponentSpec("transformers", classes, optional, idle, depth)


def tokenizer(*classes: str, optional: bool = False) -> ComponentSpec:
    """Return the spec of a transformers tokenizer."""
    return ComponentSpec("tokenizer", classes, optional)


def image_processor(*classes: str, optional: bool = False) -> ComponentSpec:
    """The preprocessor of an image encoder."""
    return ComponentSpec("image_processor", classes, optional)


def processor(*classes: str, optional: bool = False) -> ComponentSpec:
    """Return the spec of a combined tokenizer and image processor."""
    return ComponentSpec("processor", classes, optional)


TOKENIZERS_OF_PROCESSORS: Mapping[str, str] = {"PixtralProcessor": "PreTrainedTokenizerFast"}
"""Tokenizer in the folder of a processor whose images are not used: loading the processor itself
would need torchvision."""
HEAD = "lm_head"
"""Layer of a language model that predicts words, which an encoder does not."""
_ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the old and the new name
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", *_ANY_TOKENIZER)
GEMMA_TOKENIZERS = ("GemmaTokenizer", "GemmaTokenizerFast", *_ANY_TOKENIZER)
LLAMA_TOKENIZERS = ("LlamaTokenizer", "LlamaTokenizerFast", *_ANY_TOKENIZER)
QWEN_TOKENIZERS = ("Qwen2Tokenizer", "Qwen2TokenizerFast", *_ANY_TOKENIZER)
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast", *_ANY_TOKENIZER)
CLIP_IMAGE_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
PROCESSORS: Mapping[str, tuple[str, str]] = dict.fromkeys(
    ("Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"),
    ("Qwen2TokenizerFast", "Qwen2VLImageProcessor"),
)
"""The tokenizer and the image processor; the video part would need torchvision."""
