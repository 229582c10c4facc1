"""Loads a prompt enhancer from a folder of transformers, as data only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from multimodal_gen.checkpoints.files import inside, module_config, read_json, weight_files
from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.plan import ENHANCED_TOKENS
from multimodal_gen.runtime.enhancer.enhancer import ENHANCER, PromptEnhancer
from multimodal_gen.runtime.enhancer.instruction import ids_of
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.pretrained import complaints, library_class, load_tokenizer
from multimodal_gen.runtime.loader.quantized.forms import open_weights

_HERE = "."
_CLASSES = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
_TOKENIZER = "PreTrainedTokenizerFast"


class EnhancerFolder:
    """A folder with config.json, safetensors and tokenizer.json."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidCheckpoint for anything missing, damaged or not allowed."""
        self._folder = folder
        with _named(folder):
            self._config = module_config(folder, _HERE)
            named = self._config.get("architectures")
            self._kind = named[0] if isinstance(named, list) and named else None
            if self._kind not in _CLASSES:
                raise InvalidCheckpoint(
                    f"config.json: architectures={named!r:.100} must be a causal language model of "
                    "transformers, such as Qwen3ForCausalLM"
                )
            known = inspect.signature(library_class("transformers", self._kind).forward).parameters
            if "past_key_values" not in known:
                raise InvalidCheckpoint(f"{self._kind} is not supported: it has no cache of keys")
            self._files = weight_files(folder, _HERE, "model").paths
            if not inside(folder, "tokenizer.json").is_file():
                raise InvalidCheckpoint("tokenizer.json: no such file")

    @property
    def size(self) -> int:
        """Bytes of its weights' files."""
        return sum(path.stat().st_size for path in self._files)

    def load(self, dtype: torch.dtype, device: torch.device) -> PromptEnhancer:
        """Load it. Raises InvalidCheckpoint."""
        with _named(self._folder):
            tokenizer = load_tokenizer(self._folder, _HERE, _TOKENIZER)
            self._check_instruction(tokenizer)
            module = LibraryModule("transformers", str(self._kind), self._config, ENHANCER)
            settings = quantization_settings(self._folder, _HERE)
            with open_weights(self._files, ENHANCER, settings) as stored:
                loaded: Any = module.load(stored, dtype, device)
            if len(tokenizer) > (known := loaded.get_input_embeddings().num_embeddings):
                raise InvalidCheckpoint(f"has {len(tokenizer)} tokens, but its model {known}")
            return PromptEnhancer(tokenizer, loaded, sorted(set(self._ends(tokenizer))))

    def _check_instruction(self, tokenizer: Any) -> None:
        """Raise InvalidCheckpoint unless a short prompt can be put into the chat template, and fits
        with its answer."""
        with complaints("chat template"):
            asked = len(ids_of(tokenizer, "a"))
        if not asked:
            raise InvalidCheckpoint("chat template: makes nothing of a prompt")
        longest = self._config.get("max_position_embeddings")
        if isinstance(longest, int) and longest < (needed := asked + ENHANCED_TOKENS):
            allowed = f"must be at least {needed}: the task and an answer of {ENHANCED_TOKENS}"
            raise InvalidCheckpoint(f"config.json: max_position_embeddings={longest} {allowed}")

    def _ends(self, tokenizer: Any) -> Iterator[int]:
        """Tokens that end an answer, as its files state them."""
        file = "generation_config.json"
        stated = read_json(self._folder, file) if (self._folder / file).is_file() else {}
        for told in (stated.get("eos_token_id"), self._config.get("eos_token_id")):
            yield from (each for each in _listed(told) if isinstance(each, int))
        if tokenizer.eos_token_id is not None:
            yield tokenizer.eos_token_id


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Name the option in errors."""
    try:
        yield
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"prompt_enhancer={str(folder)!r}: {error.message}") from error


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
