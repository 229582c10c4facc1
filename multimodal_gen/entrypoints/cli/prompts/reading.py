"""Reads prompts from a file, each with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.cli.options.hyphens import STANDARD
from multimodal_gen.entrypoints.cli.prompts.formats import (
    FORMATS,
    PromptEntry,
    format_of,
    format_seen,
)
from multimodal_gen.entrypoints.cli.prompts.standard_streams import read_standard_input
from multimodal_gen.errors import InvalidRequest

_FIELD = "prompt_path"


def read_prompts(path: str, common: SamplingParams) -> list[SamplingParams]:
    """Read the prompts of a file, or of standard input for `-`, in one of the FORMATS; parameters
    that an entry leaves unset come from `common`.

    Raises InvalidRequest, which names the line or the entry.
    """
    text = read_standard_input(_FIELD) if path == STANDARD else _text_of(path)
    form = format_seen(text) if path == STANDARD else format_of(Path(path).suffix)
    prompts = []
    for entry in form(text, path):
        try:
            prompts.append(_with(entry, common))
        except InvalidRequest as error:
            raise InvalidRequest(_FIELD, entry.place, error.message) from error
    if not prompts:
        raise InvalidRequest(_FIELD, path, "must contain at least one prompt")
    return prompts


def _text_of(path: str) -> str:
    try:
        return user_path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        allowed = f"can't be read as text; use {', '.join(FORMATS)} or another text file"
        raise InvalidRequest(_FIELD, path, allowed) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(_FIELD, path, f"can't be read: {reason}") from error


def _with(entry: PromptEntry, common: SamplingParams) -> SamplingParams:
    given: Any = entry.given
    if isinstance(given, str):
        given = {"prompt": given}
    if not isinstance(given, dict):
        raise InvalidRequest("entry", given, "must be a prompt, or an object of parameters")
    params = common.updated(**given)
    if not params.prompt:
        raise InvalidRequest("prompt", params.prompt, "must not be empty")
    return params


def with_images(prompts: list[SamplingParams], paths: Sequence[str]) -> list[SamplingParams]:
    """Give all images to a single prompt, or each prompt its own. Raises InvalidRequest."""
    if len(prompts) == 1 and len(paths) > 1:
        return [replace(prompts[0], image_path=tuple(paths))]
    return _one_each(prompts, "image_path", paths)


def with_masks(prompts: list[SamplingParams], paths: Sequence[str]) -> list[SamplingParams]:
    """Give each prompt its mask; one prompt is repeated for several. Raises InvalidRequest."""
    if len(prompts) == 1 and len(paths) > 1:
        prompts = prompts * len(paths)
    return _one_each(prompts, "mask_path", paths)


def _one_each(
    prompts: list[SamplingParams], name: str, paths: Sequence[str]
) -> list[SamplingParams]:
    if len(paths) < 2:
        return prompts  # all have it already
    if len(prompts) != len(paths):
        allowed = f"must be one, or one for each of {len(prompts)} requests"
        raise InvalidRequest(name, f"{len(paths)} files", allowed)
    return [prompt.updated(**{name: path}) for prompt, path in zip(prompts, paths, strict=True)]
