"""`multimodal-gen generate`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.entrypoints.cli.options.config_file import Config
from multimodal_gen.entrypoints.cli.options.option_groups import (
    BriefEngineFlags,
    BriefEngineOptions,
)
from multimodal_gen.entrypoints.cli.options.request_flags import RequestFlags


def generate(
    *prompts: Annotated[str, Parameter(show=False)],
    prompt_path: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    output_path: Annotated[str, Parameter(alias="-o")] = "outputs/",
    force: Annotated[bool, Parameter(negative=())] = False,
    metadata: bool = True,
    config: Config = None,
    params: Annotated[RequestFlags, Parameter(name="*")] = RequestFlags(),  # noqa: B008
    engine: BriefEngineOptions = BriefEngineFlags(),  # noqa: B008
) -> int:
    """Generate images or videos from prompts and print their paths.

    Parameters
    ----------
    prompt_path
        Prompts in a .txt, .csv, .json or .jsonl file; - is stdin.
    from_
        Image or video to take all settings from; other options override them.
    output_path
        Folder, or png, jpg, webp, mp4, gif, wav with {prompt}, {seed}, {index}; or -.
    force
        Overwrite files.
    metadata
        Store prompt, seed and parameters in files.
    config
        YAML file with options.
    """
    from multimodal_gen.entrypoints.cli.prompts.early_checks import check_adapters, check_device
    from multimodal_gen.entrypoints.cli.prompts.requests import requests_of
    from multimodal_gen.entrypoints.cli.running.outputs import check_outputs
    from multimodal_gen.launch.expected_model import check_model_path, expected_model
    from multimodal_gen.messages.validation import check_offered

    engine_args = EngineArgs.of(engine)
    model = expected_model(engine_args)
    requests = requests_of(prompts, params, prompt_path, from_, model)
    check_outputs(output_path, requests, force=force)
    for each in requests:
        check_offered(each, engine_args)
    check_adapters(requests, engine_args, model)
    from multimodal_gen.entrypoints.cli.running.prompt_list import PromptList
    from multimodal_gen.entrypoints.python.diffusion_generator import start_engine
    from multimodal_gen.launch.loading_display import LoadingDisplay

    prompt_list = PromptList(requests)
    prompt_list.check(model)
    check_model_path(engine_args)
    check_device(engine_args)
    with LoadingDisplay() as display:
        started = start_engine(engine_args, display.show)
    with started as running:
        errors = prompt_list.run(running.client, output_path, metadata, force=force)
    for prompt, error in errors:
        print(f"multimodal-gen: {prompt!r}: {error.message}", file=sys.stderr)
    return 1 if errors else 0
