"""The requests of `generate`, from its arguments, a file of prompts, or a file that was made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.options.hyphens import STANDARD
from multimodal_gen.entrypoints.cli.options.request_flags import RequestFlags
from multimodal_gen.entrypoints.cli.prompts.origin import Origin, missing_pictures, origin_of
from multimodal_gen.entrypoints.cli.prompts.reading import read_prompts, with_images, with_masks
from multimodal_gen.entrypoints.cli.prompts.standard_streams import read_standard_input
from multimodal_gen.entrypoints.cli.text_output import printable
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo

_MANY_WORDS = 3


def requests_of(
    given: Sequence[str],
    flags: RequestFlags,
    prompt_path: str | None,
    made: str | None,
    model: ModelInfo | None,
) -> list[SamplingParams]:
    """A request per prompt: `given` as arguments, then those of flags, or those of a file. `made`
    is an output whose settings are taken, and `model` the one that will use them. Raises
    InvalidRequest."""
    origin = None if made is None else _origin(made)
    base = None if origin is None else _settings(origin, made, model)
    common = flags.common(base)
    texts = [_text(each) for each in (*given, *flags.prompt)]
    _warn_of_words(given)
    if prompt_path is not None and texts:
        raise InvalidRequest("prompt", texts[0], "can't be combined with prompt_path")
    if prompt_path is not None:
        prompts = read_prompts(prompt_path, common)
    else:
        prompts = [replace(common, prompt=prompt) for prompt in texts or [common.prompt]]
        _check_not_empty(prompts)
    requests = with_images(with_masks(prompts, flags.mask_path), flags.image_path)
    if origin is not None:
        _check_pictures(made, origin, requests[0])
    return requests


def _warn_of_words(given: Sequence[str]) -> None:
    """Tell who leaves out the quotes of a prompt that each word becomes an image."""
    if len(given) >= _MANY_WORDS and not any(" " in each for each in given):
        meant = " ".join(given)
        hint = f'{len(given)} prompts of a word each; one prompt is in quotes: "{meant}"'
        print(f"multimodal-gen: warning: {hint}", file=sys.stderr)


def _text(prompt: str) -> str:
    return read_standard_input("prompt").strip() if prompt == STANDARD else prompt


def _check_not_empty(prompts: Sequence[SamplingParams]) -> None:
    if all(each.prompt for each in prompts):
        return
    allowed = 'must not be empty without prompt_path: multimodal-gen generate "a red heart"'
    raise InvalidRequest("prompt", "", allowed)


def _origin(made: str) -> Origin:
    origin = origin_of("from", made)
    if origin is None:
        raise InvalidRequest("from", made, "has no settings in its metadata")
    return origin


def _settings(origin: Origin, made: str | None, model: ModelInfo | None) -> SamplingParams:
    try:
        params = origin.params(() if model is None else model.schedulers)
    except ValueError as error:
        raise InvalidRequest("from", made, f"has settings that can't be read: {error}") from error
    if origin.model and model is not None and origin.model != model.name:
        allowed = f"was made with another model ({origin.model}); --model-path names it"
        if origin.recipe is not None:
            raise InvalidRequest("from", made, allowed)
        print(printable(f"multimodal-gen: warning: {made} {allowed}"), file=sys.stderr)
    return params


def _check_pictures(made: str | None, origin: Origin, params: SamplingParams) -> None:
    if missing := missing_pictures(origin, params):
        allowed = f"was made from files that it does not keep: give {' and '.join(missing)} again"
        raise InvalidRequest("from", made, allowed)
