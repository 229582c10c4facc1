"""All that a library sees of a checkpoint: the files that were checked, and the settings that its
classes declare.

A library opens whatever its configs name, and imports or downloads what some keys select. So it is
shown a folder of our making, with links to files that lie inside the checkpoint, and with configs
from which everything else was removed.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.declared_numbers import check_numbers

_OLD_KEYS = frozenset(
    {
        "dense_act_fn",
        "is_gated_act",
        "model_type",
        "partial_rotary_factor",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
    }
)
"""Keys of published configs that transformers reads though no class declares them any more."""
_TOKENIZER_KEYS = frozenset(
    {
        "add_prefix_space",
        "added_tokens_decoder",
        "additional_special_tokens",
        "chat_template",
        "clean_up_tokenization_spaces",
        "do_lower_case",
        "errors",
        "extra_ids",
        "extra_special_tokens",
        "legacy",
        "max_length",
        "model_input_names",
        "model_max_length",
        "padding_side",
        "spaces_between_special_tokens",
        "split_special_tokens",
        "strip_accents",
        "tokenize_chinese_chars",
        "truncation_side",
        "use_default_system_prompt",
    }
)
"""Settings of tokenizers besides special tokens. Others can name files, or objects to be made."""


@contextmanager
def laid_out(
    component: str, configs: Mapping[str, Mapping[str, Any]], files: Mapping[str, Path]
) -> Iterator[Path]:
    """Make a temporary folder, named like the component, with these JSON files and with links to
    these checked files."""
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-view-") as made:
        folder = Path(made) / (Path(component).name or "folder")
        folder.mkdir()
        for name, content in configs.items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        for name, path in files.items():
            (folder / name).symlink_to(path.resolve())
        yield folder


def model_settings(kind: Any, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings that class `kind` of transformers declares, also in nested configs.

    Raises InvalidCheckpoint if a nested config is of another model than the class has there, and
    for what should be a number and is not.
    """
    return _declared(kind.config_class, config, where)


def _declared(config_class: Any, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    nested = {name: _class_of(config_class, name) for name in config_class.sub_configs}
    known = set(_OLD_KEYS)
    for each in (config_class, *nested.values()):  # Old configs have nested settings at the top.
        known |= {field.name for field in fields(each)} | each.attribute_map.keys()
    known.discard("dtype")  # The name of any attribute of torch; ours is given apart.
    settings = {key: value for key, value in config.items() if key in known}
    for name, each in nested.items():
        if isinstance(part := settings.get(name), dict):
            settings[name] = _declared(each, part, f"{where}: {name}")
            found = part.get("model_type", each.model_type)
            if found != each.model_type:
                raise InvalidCheckpoint(
                    f"{where}: {name}: model_type={found!r} must be {each.model_type}"
                )
    check_numbers(config_class, settings, where)
    return settings


def _class_of(config_class: Any, name: str) -> Any:
    """Class of a nested config. Where any is allowed, it is the default's."""
    declared = config_class.sub_configs[name]
    return declared if hasattr(declared, "attribute_map") else type(getattr(config_class(), name))


def module_settings(kind: Any, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings that class `kind` of diffusers declares. Raises InvalidCheckpoint."""
    known = inspect.signature(kind.__init__).parameters
    settings = {key: value for key, value in config.items() if key in known}
    check_numbers(kind, settings, where)
    return {**settings, "_class_name": kind.__name__}


def tokenizer_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's plain settings and its special tokens."""
    return {
        key: value
        for key, value in config.items()
        if key in _TOKENIZER_KEYS or key.endswith(("_token", "_token_id"))
    }
