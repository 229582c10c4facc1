"""Loads classes of diffusers and transformers, from a folder or from tensors."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn

from multimodal_gen.checkpoints.files import (
    WeightFiles,
    check_config,
    inside,
    module_config,
    read_json,
    weight_files,
)
from multimodal_gen.checkpoints.tensor_info import is_float
from multimodal_gen.configs.families.components import PROCESSORS
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.allowed import ALLOWED
from multimodal_gen.runtime.loader.library_view import (
    laid_out,
    model_settings,
    module_settings,
    tokenizer_settings,
)
from multimodal_gen.runtime.loader.tensors.stored import Stored, assemble
from multimodal_gen.runtime.loader.tensors.weights import fill

log = logging.getLogger(__name__)


class PictureProcessor(NamedTuple):
    """The parts of a processor for text and for images."""

    tokenizer: Any
    image_processor: Any


_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
_BESIDE_VOCABULARIES = ("merges.txt", "added_tokens.json", "chat_template.jinja")
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_MAX_VOCABULARY_BYTES = 256 << 20
"""Libraries read these files as a whole; known ones have up to 35 MB."""
_SHOWN_CHARACTERS = 400
"""Maximum length of a library's message in errors; some print a page."""

WEIGHTS_STEM = {
    "diffusers": "diffusion_pytorch_model",
    "transformers": "model",
}


def load_tokenizer(root: Path, name: str, class_name: str) -> Any:
    """Load the tokenizer in folder `name`, by its class and without running code from the
    folder."""
    files = _present(root, name, (*_VOCABULARIES, *_BESIDE_VOCABULARIES))
    if not files.keys() & set(_VOCABULARIES):
        # Without one, the library creates a tokenizer without any words.
        raise InvalidCheckpoint(f"{name}: has no vocabulary ({', '.join(_VOCABULARIES)})")
    configs = {
        file: tokenizer_settings(check_config(read_json(root, f"{name}/{file}"), f"{name}/{file}"))
        for file in _present(root, name, _TOKENIZER_CONFIGS)
    }
    kind = getattr(quiet("transformers"), class_name)
    with complaints(f"{name}: {class_name}"), laid_out(name, configs, files) as folder:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _present(root: Path, name: str, files: Sequence[str]) -> dict[str, Path]:
    """The files that folder `name` has. Raises InvalidCheckpoint for one that leads outside, or
    that no library could hold in memory."""
    found = {file: inside(root, f"{name}/{file}") for file in files}
    present = {file: path for file, path in found.items() if path.is_file()}
    for file, path in present.items():
        if path.stat().st_size > _MAX_VOCABULARY_BYTES:
            raise InvalidCheckpoint(f"{name}/{file}: larger than {_MAX_VOCABULARY_BYTES} bytes")
    return present


def load_image_processor(root: Path, name: str, class_name: str) -> Any:
    """Load the image processor of an image encoder: settings only."""
    config = _image_processor_config(root, name)
    kind = getattr(quiet("transformers"), class_name)
    with complaints(f"{name}: {class_name}"):
        return kind.from_dict(config)


def _image_processor_config(root: Path, name: str) -> dict[str, Any]:
    """Read its config from its own file or, if it is part of a processor, from the processor's."""
    whole = f"{name}/processor_config.json"
    if inside(root, whole).is_file():
        part = check_config(read_json(root, whole), whole).get("image_processor")
        if isinstance(part, dict):
            return part
    own = f"{name}/preprocessor_config.json"
    return check_config(read_json(root, own), own)


def load_processor(root: Path, name: str, class_name: str) -> PictureProcessor:
    """Load the processor of a vision language model, by the classes of its parts."""
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
) -> nn.Module:
    """Load the module in folder `name` with its library's own safe loader, with checks before and
    after."""
    config = module_config(root, name)
    files = weight_files(root, name, WEIGHTS_STEM[library])
    if inside(root, f"{name}/adapter_config.json").exists():
        raise InvalidCheckpoint(
            f"{name}/adapter_config.json: adapters inside a checkpoint are not read"
        )
    kind = getattr(quiet(library), class_name)
    options: dict[str, Any] = {"torch_dtype": dtype}
    with complaints(f"{name}: {class_name}"):
        settings = _settings(kind, library, config, name)
        if library == "transformers":
            options = {
                "dtype": dtype,
                "config": kind.config_class.from_dict(settings),
                "ignore_mismatched_sizes": True,  # the library reports no names; we do
            }
        configs = {"config.json": settings, **_index(files)}
        with laid_out(name, configs, _named(files)) as folder:
            module, info = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                variant=files.variant,
                output_loading_info=True,
                **options,
            )
    check_keys(name, info)
    module = module.to(device).eval().requires_grad_(False)
    assert isinstance(module, nn.Module)
    return module


def _settings(kind: Any, library: str, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    if library == "transformers":
        return model_settings(kind, config, f"{name}/config.json")
    return module_settings(kind, config, f"{name}/config.json")


def _named(files: WeightFiles) -> dict[str, Path]:
    return {path.name: path for path in files.paths}


def _index(files: WeightFiles) -> dict[str, dict[str, Any]]:
    """Index of shards by its name; libraries need `metadata`, which some files lack."""
    content = {"metadata": {}, "weight_map": dict(files.weight_map)}
    return {files.index: content} if files.index else {}


def module_of(
    stored: Mapping[str, Stored],
    *,
    library: str,
    class_name: str,
    config: Mapping[str, Any],
    name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    """Load a module from tensors as its library would from a folder. Raises InvalidCheckpoint;
    `name` is the component's name in errors."""
    kind = getattr(quiet(library), class_name)
    make = _from_transformers if library == "transformers" else _from_diffusers
    module = make(kind, config, stored, name, dtype)
    return module.to(device).eval().requires_grad_(False)


def _from_diffusers(
    kind: Any,
    config: Mapping[str, Any],
    stored: Mapping[str, Stored],
    name: str,
    dtype: torch.dtype,
) -> nn.Module:
    with complaints(f"{name}: {kind.__name__}"), init_empty_weights(include_buffers=False):
        module: nn.Module = kind.from_config(module_settings(kind, config, f"{name}/config.json"))
    object.__setattr__(module, "keep_in_float32", tuple(kind._keep_in_fp32_modules or ()))
    key_map = {key: (key,) for key in module.state_dict()}
    fill(module, stored, key_map, name=name, dtype=dtype, device=torch.device("cpu"))
    return module


def _from_transformers(
    kind: Any,
    config: Mapping[str, Any],
    stored: Mapping[str, Stored],
    name: str,
    dtype: torch.dtype,
) -> nn.Module:
    state = {key: _as_stored(tensor) for key, tensor in stored.items() if is_float(tensor.dtype)}
    if "text_projection.weight" not in state and "projection_dim" in config:
        # Stable Diffusion 3 pools CLIP-L without a projection, which its files may omit.
        state |= _no_projection(kind, config)
    with complaints(f"{name}: {kind.__name__}"):
        module, info = kind.from_pretrained(
            None,
            config=kind.config_class.from_dict(model_settings(kind, config, f"{name}/config.json")),
            state_dict=state,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_keys(name, info)
    assert isinstance(module, nn.Module)
    return module


def _as_stored(tensor: Stored) -> Tensor:
    """Read in the file's own precision: the library decides which parts are cast."""
    plain = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}
    dtype = plain.get(tensor.dtype, torch.float32)
    return assemble([tensor], torch.Size(tensor.shape), dtype, torch.device("cpu"))


def _no_projection(kind: Any, config: Mapping[str, Any]) -> dict[str, Tensor]:
    width = config.get("hidden_size")
    if not kind.__name__.endswith("WithProjection") or width != config["projection_dim"]:
        return {}
    return {"text_projection.weight": torch.eye(int(str(width)))}


def quiet(library: str) -> Any:
    """Context that silences the library's progress bars and notes."""
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
        raise InvalidCheckpoint(f"{name}: the weights don't match config.json: {listed}")
    if info.get("unexpected_keys"):
        log.warning("%s: unused weights: %s", name, sorted(info["unexpected_keys"])[:8])


@contextmanager
def complaints(what: str) -> Iterator[None]:
    """Turn any exception that a library raises for damaged files into InvalidCheckpoint: the types
    are unpredictable (tokenizers even raises plain Exception)."""
    try:
        yield
    except InvalidCheckpoint:
        raise
    except Exception as error:
        lines = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {lines}" if lines else type(error).__name__
        raise InvalidCheckpoint(f"{what}: {reason[:_SHOWN_CHARACTERS]}") from error
