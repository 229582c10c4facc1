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
    server: str | None = None,
    server_key_file: str | None = None,
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
    server
        URL of a running server to use; its key is in MULTIMODAL_GEN_API_KEY.
    server_key_file
        File with the server's key.
    config
        YAML file with options.
    """
    from multimodal_gen.entrypoints.cli.prompts.requests import requests_of
    from multimodal_gen.entrypoints.cli.running.outputs import check_outputs
    from multimodal_gen.entrypoints.cli.running.sources import (
        check_own_engine,
        check_server,
        own_engine,
        server_engine,
    )
    from multimodal_gen.launch.expected_model import expected_model

    args = EngineArgs.of(engine)
    model = None if server else expected_model(args)
    requests = requests_of(prompts, params, prompt_path, from_, model)
    images = model is not None and not model.makes_videos
    check_outputs(output_path, requests, force=force, images=images)
    from multimodal_gen.entrypoints.cli.running.prompt_list import PromptList

    prompt_list = PromptList(requests)
    prompt_list.check(model)
    if server:
        check_server(args)
        results = server_engine(server, server_key_file, args.model_path)
    else:
        check_own_engine(args, server_key_file, requests, model)
        results = own_engine(args)
    with results as source:
        errors = prompt_list.run(source, output_path, metadata, force=force)
    for prompt, error in errors:
        print(f"multimodal-gen: {prompt!r}: {error.message}", file=sys.stderr)
    return 1 if errors else 0
