"""Reads prompts from a file, each with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest


def read_prompts(path: Path, common: SamplingParams) -> list[SamplingParams]:
    """Read one prompt per line; in a `.jsonl` file one object per line, with keys of
    SamplingParams.

    Other values come from `common`. Raises InvalidRequest, which names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("prompt_path", str(path), f"can't be read: {error}") from error
    read = _of_json if path.suffix == ".jsonl" else _of_text
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompts.append(read(line, common))
        except (InvalidRequest, msgspec.MsgspecError) as error:
            where = f"{path}:{number}"
            raise InvalidRequest("prompt_path", where, f"is not valid: {error}") from error
    if not prompts:
        raise InvalidRequest("prompt_path", str(path), "must contain at least one prompt")
    return prompts


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


def _of_text(line: str, common: SamplingParams) -> SamplingParams:
    return replace(common, prompt=line.strip())


def _of_json(line: str, common: SamplingParams) -> SamplingParams:
    given = msgspec.json.decode(line, type=dict[str, Any])
    params = common.updated(**given)
    if not params.prompt:
        raise InvalidRequest("prompt", params.prompt, "must not be empty")
    return params
