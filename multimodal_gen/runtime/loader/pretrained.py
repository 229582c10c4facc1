"""Loads tokenizers and processors of transformers from a folder."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_gen.checkpoints.files import check_config, inside, read_json
from multimodal_gen.configs.families.components import PROCESSORS, TOKENIZERS_OF_PROCESSORS
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.loader.allowed import ALLOWED
from multimodal_gen.runtime.loader.library_view import laid_out, tokenizer_settings


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
_OF_BYTES = ("ByT5Tokenizer",)
"""Tokenizers whose vocabulary is in no file."""
_BESIDE_VOCABULARIES = ("merges.txt", "added_tokens.json", "chat_template.jinja")
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_MAX_VOCABULARY_BYTES = 256 << 20
"""Libraries read these files as a whole; known ones have up to 35 MB."""
_SHOWN_CHARACTERS = 400
"""Maximum length of a library's message in errors; some print a page."""


def load_tokenizer(root: Path, name: str, class_name: str) -> Any:
    """Load the tokenizer in folder `name`, by its class, or that of a processor with it, and
    without running code from the folder."""
    files = _present(root, name, (*_VOCABULARIES, *_BESIDE_VOCABULARIES))
    if not files.keys() & set(_VOCABULARIES) and class_name not in _OF_BYTES:
        # Without one, the library creates a tokenizer without any words.
        raise InvalidCheckpoint(f"{name}: has no vocabulary ({', '.join(_VOCABULARIES)})")
    configs = {
        file: tokenizer_settings(check_config(read_json(root, f"{name}/{file}"), f"{name}/{file}"))
        for file in _present(root, name, _TOKENIZER_CONFIGS)
    }
    tokenizer_class = TOKENIZERS_OF_PROCESSORS.get(class_name, class_name)
    kind = getattr(quiet("transformers"), tokenizer_class)
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


def library_class(library: str, name: str) -> Any:
    """The class that model_index.json names so: of a library, or of a folder of diffusers'
    pipelines."""
    if library in ("diffusers", "transformers"):
        return getattr(quiet(library), name)
    quiet("diffusers")
    return getattr(importlib.import_module(f"diffusers.pipelines.{library}"), name)


def quiet(library: str) -> Any:
    """Context that silences the library's progress bars and notes."""
    logs = importlib.import_module(f"{library}.utils.logging")
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    return importlib.import_module(library)


@contextmanager
def complaints(what: str) -> Iterator[None]:
    """Turn any exception that a library raises for damaged files into InvalidCheckpoint: the types
    are unpredictable (tokenizers even raises plain Exception)."""
    try:
        yield
    except (InvalidCheckpoint, InvalidRequest):
        raise
    except Exception as error:
        lines = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {lines}" if lines else type(error).__name__
        raise InvalidCheckpoint(f"{what}: {reason[:_SHOWN_CHARACTERS]}") from error
