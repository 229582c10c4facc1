"""The classes of diffusers and transformers that a checkpoint may name, and how each is loaded."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from multimodal_gen.checkpoints.files import (
    check_config,
    inside,
    module_config,
    read_json,
    weight_files,
)
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader import library_classes

log = logging.getLogger(__name__)

Kind = Literal[
    "diffusers",
    "transformers",
    "tokenizer",
    "image_processor",
    "processor",
    "scheduler",
    "native",
    "unused",
]

_ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the old and the new name
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", *_ANY_TOKENIZER)
QWEN_TOKENIZERS = ("Qwen2Tokenizer", "Qwen2TokenizerFast", *_ANY_TOKENIZER)
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast", *_ANY_TOKENIZER)
CLIP_IMAGE_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
PROCESSORS = dict.fromkeys(
    ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"), ("Qwen2TokenizerFast", "Qwen2VLImageProcessor")
)
"""What tokenizes, and what cuts pictures into patches: the part for videos needs torchvision."""
LLAMA_TOKENIZERS = ("LlamaTokenizer", "LlamaTokenizerFast", *_ANY_TOKENIZER)
GEMMA_TOKENIZERS = ("GemmaTokenizer", "GemmaTokenizerFast", *_ANY_TOKENIZER)
_TOKENIZERS = (
    *CLIP_TOKENIZERS,
    *T5_TOKENIZERS,
    *QWEN_TOKENIZERS,
    *LLAMA_TOKENIZERS,
    *GEMMA_TOKENIZERS,
)
_ENCODERS = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "Gemma2Model",
    "LlamaModel",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3ForCausalLM",
    "Qwen3Model",
    "T5EncoderModel",
    "UMT5EncoderModel",
)
_NATIVE = (
    "Flux2Transformer2DModel",
    "FluxTransformer2DModel",
    "QwenImageTransformer2DModel",
    "SD3Transformer2DModel",
    "WanTransformer3DModel",
    "ZImageTransformer2DModel",
)
_MODULES = (
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLCogVideoX",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLQwenImage",
    "AutoencoderKLWan",
    "CogVideoXTransformer3DModel",
    "HunyuanVideoTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "PixArtTransformer2DModel",
    "SanaTransformer2DModel",
    "Transformer2DModel",
    "UNet2DConditionModel",
)
ALLOWED: Mapping[tuple[str, str], Kind] = {
    **{("diffusers", name): "diffusers" for name in (*library_classes.MODELS, *_MODULES)},
    **{("diffusers", name): "native" for name in _NATIVE},
    **{("diffusers", name): "scheduler" for name in library_classes.ALL_SCHEDULERS},
    **{("transformers", name): "transformers" for name in (*library_classes.ENCODERS, *_ENCODERS)},
    **{("transformers", name): "tokenizer" for name in (*library_classes.TOKENIZERS, *_TOKENIZERS)},
    **{("transformers", name): "image_processor" for name in CLIP_IMAGE_PROCESSORS},
    **{("transformers", name): "processor" for name in PROCESSORS},
    ("stable_diffusion", "StableDiffusionSafetyChecker"): "unused",
    ("transformers", "CLIPFeatureExtractor"): "unused",
    ("transformers", "Mistral3ForConditionalGeneration"): "unused",
    ("transformers", "PixtralProcessor"): "unused",
}
"""(library, class) as model_index.json has them. Nothing else is ever imported for a checkpoint."""


class PictureProcessor(NamedTuple):
    """A processor's parts for text and for pictures."""

    tokenizer: Any
    image_processor: Any


_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
_SHOWN_CHARACTERS = 400
"""Of what a library says; some print a page."""

WEIGHTS_STEM = {
    "native": "diffusion_pytorch_model",
    "diffusers": "diffusion_pytorch_model",
    "transformers": "model",
}


def load_tokenizer(root: Path, name: str, class_name: str) -> Any:
    """The tokenizer in folder `name`, by its class and without code of its own."""
    if inside(root, f"{name}/tokenizer_config.json").is_file():
        config_name = f"{name}/tokenizer_config.json"
        check_config(read_json(root, config_name), config_name)
    for file in inside(root, name).iterdir():
        inside(root, f"{name}/{file.name}")
    if not any(inside(root, f"{name}/{file}").is_file() for file in _VOCABULARIES):
        # Without one, the library makes a tokenizer that knows no word.
        raise InvalidCheckpoint(f"{name}: has no vocabulary ({', '.join(_VOCABULARIES)})")
    kind = getattr(quiet("transformers"), class_name)
    with complaints(f"{name}: {class_name}"):
        return kind.from_pretrained(root / name, local_files_only=True, trust_remote_code=False)


def load_image_processor(root: Path, name: str, class_name: str) -> Any:
    """What makes pixels fit for an encoder of pictures: settings alone."""
    config = _image_processor_config(root, name)
    kind = getattr(quiet("transformers"), class_name)
    with complaints(f"{name}: {class_name}"):
        return kind.from_dict(config)


def _image_processor_config(root: Path, name: str) -> dict[str, Any]:
    """In a file of its own, or where it is part of a processor, in that of the whole."""
    whole = f"{name}/processor_config.json"
    if inside(root, whole).is_file():
        part = check_config(read_json(root, whole), whole).get("image_processor")
        if isinstance(part, dict):
            return part
    own = f"{name}/preprocessor_config.json"
    return check_config(read_json(root, own), own)


def load_processor(root: Path, name: str, class_name: str) -> PictureProcessor:
    """The processor of a language model that sees, by the classes of its parts."""
    tokenizer_class, image_processor_class = PROCESSORS[class_name]
    path = f"{name}/tokenizer_config.json"
    if inside(root, path).is_file():
        named = read_json(root, path).get("tokenizer_class")
        if ALLOWED.get(("transformers", str(named))) == "tokenizer":
            tokenizer_class = str(named)
    return PictureProcessor(
        load_tokenizer(root, name, tokenizer_class),
        load_image_processor(root, name, image_processor_class),
    )


def load_module(
    root: Path, name: str, library: str, class_name: str, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    """The module in folder `name` by its library's own safe loader, checked before and after."""
    config = module_config(root, name)
    files = weight_files(root, name, WEIGHTS_STEM[library])
    if inside(root, f"{name}/adapter_config.json").exists():
        raise InvalidCheckpoint(
            f"{name}/adapter_config.json: adapters inside a checkpoint are not read"
        )
    kind = getattr(quiet(library), class_name)
    with complaints(f"{name}: {class_name}"):
        options: dict[str, Any] = {"torch_dtype": dtype}
        if library == "transformers":
            options = {
                "dtype": dtype,
                "config": kind.config_class.from_dict(config),
                "ignore_mismatched_sizes": True,  # its own complaint names no tensor; ours does
            }
        module, info = kind.from_pretrained(
            root / name,
            use_safetensors=True,
            local_files_only=True,
            variant=files.variant,
            output_loading_info=True,
            **options,
        )
    check_keys(name, info)
    module = module.to(device).eval().requires_grad_(False)
    assert isinstance(module, torch.nn.Module)
    return module


def quiet(library: str) -> Any:
    """The library, without bars and notes of its own on the terminal."""
    logs = importlib.import_module(f"{library}.utils.logging")
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    return importlib.import_module(library)


def check_keys(name: str, info: Mapping[str, Any]) -> None:
    wrong = {
        what: sorted(str(key) for key in info.get(f"{what}_keys") or ())
        for what in ("missing", "mismatched")
    }
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {', '.join(keys[:8])}" for what, keys in wrong.items() if keys)
        raise InvalidCheckpoint(f"{name}: the weights don't fit config.json: {listed}")
    if info.get("unexpected_keys"):
        log.warning("%s: weights without a place: %s", name, sorted(info["unexpected_keys"])[:8])


@contextmanager
def complaints(what: str) -> Iterator[None]:
    """Whatever a library raises over files that are broken is one InvalidCheckpoint: there is no
    end to the kinds (tokenizers even raises plain Exception)."""
    try:
        yield
    except InvalidCheckpoint:
        raise
    except Exception as error:
        lines = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {lines}" if lines else type(error).__name__
        raise InvalidCheckpoint(f"{what}: {reason[:_SHOWN_CHARACTERS]}") from error
