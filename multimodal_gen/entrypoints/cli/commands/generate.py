"""`multimodal-gen generate`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.options.config_file import Config
from multimodal_gen.entrypoints.cli.options.option_groups import (
    BriefEngineFlags,
    BriefEngineOptions,
)
from multimodal_gen.entrypoints.cli.options.request_flags import RequestFlags
from multimodal_gen.errors import InvalidRequest


def generate(
    *,
    prompt_path: Path | None = None,
    output_path: Annotated[str, Parameter(alias="-o")] = "outputs/",
    metadata: bool = True,
    config: Config = None,
    params: Annotated[RequestFlags, Parameter(name="*")] = RequestFlags(),  # noqa: B008
    engine: BriefEngineOptions = BriefEngineFlags(),  # noqa: B008
) -> int:
    """Generate images or videos from prompts and print their paths.

    Parameters
    ----------
    prompt_path
        File: a prompt per line, or .jsonl with objects of parameters.
    output_path
        Folder, or png, jpg, webp, mp4, gif, wav.
    metadata
        Store prompt, seed and parameters in files.
    config
        YAML file with options.
    """
    from multimodal_gen.messages.validation import check_offered
    from multimodal_gen.postprocess.files import check_suffix, check_writable

    prompts, engine_args = _prompts(params, prompt_path), EngineArgs.of(engine)
    for each in prompts:
        check_offered(each, engine_args)
    check_suffix(output_path)
    check_writable(output_path)
    from multimodal_gen.entrypoints.cli.running.prompt_list import PromptList
    from multimodal_gen.entrypoints.python.diffusion_generator import start_engine
    from multimodal_gen.launch.loading_display import LoadingDisplay

    prompt_list = PromptList(prompts)
    with LoadingDisplay() as display:
        started = start_engine(engine_args, display.show)
    with started as running:
        errors = prompt_list.run(running.client, output_path, metadata)
    for prompt, error in errors:
        print(f"multimodal-gen: {prompt!r}: {error.message}", file=sys.stderr)
    return 1 if errors else 0


def _prompts(flags: RequestFlags, prompt_path: Path | None) -> list[SamplingParams]:
    from multimodal_gen.entrypoints.cli.prompts.reading import read_prompts, with_images, with_masks

    common = flags.common()
    if prompt_path is not None and flags.prompt:
        raise InvalidRequest("prompt", flags.prompt[0], "can't be combined with prompt_path")
    if prompt_path is not None:
        prompts = read_prompts(prompt_path, common)
    else:
        prompts = [replace(common, prompt=prompt) for prompt in flags.prompt or ("",)]
        if not all(each.prompt for each in prompts):
            raise InvalidRequest("prompt", "", "must not be empty without prompt_path")
    return with_images(with_masks(prompts, flags.mask_path), flags.image_path)
