"""`multimodal-gen generate`."""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.config_file import Config
from multimodal_gen.entrypoints.cli.request_flags import RequestFlags
from multimodal_gen.errors import GenerationFailed, InvalidRequest, MultimodalGenError

if TYPE_CHECKING:
    from multimodal_gen.entrypoints.python.diffusion_generator import DiffusionGenerator
    from multimodal_gen.messages.model_info import ModelInfo

_WHAT = Group("What to make", sort_key=1)
_ENGINE = Group("Engine", sort_key=2)


def generate(
    *,
    prompt_path: Path | None = None,
    output_path: Annotated[str, Parameter(alias="-o")] = "outputs/",
    metadata: bool = True,
    config: Config = None,
    params: Annotated[RequestFlags, Parameter(name="*", group=_WHAT)] = RequestFlags(),  # noqa: B008
    server: Annotated[ServerArgs, Parameter(name="*", group=_ENGINE)] = ServerArgs(),  # noqa: B008
) -> int:
    """Make pictures or videos of prompts and print where they are.

    Parameters
    ----------
    prompt_path
        A file with one prompt a line, or .jsonl with an object of parameters a line.
    output_path
        A file (.png, .jpg, .webp; .mp4, .gif) or a folder, where outputs are numbered.
    metadata
        Keep prompt, seed and all parameters in the files.
    config
        A YAML file with options.
    """
    from multimodal_gen.postprocess.files import check_suffix, check_writable

    prompts = _prompts(params, prompt_path)
    check_suffix(output_path)
    check_writable(output_path)
    from multimodal_gen.entrypoints.python.diffusion_generator import DiffusionGenerator

    with DiffusionGenerator.start(server) as generator:
        errors = _run(generator, prompts, output_path, metadata)
    for prompt, error in errors:
        print(f"multimodal-gen: {prompt!r}: {error.message}", file=sys.stderr)
    return 1 if errors else 0


def _prompts(params: SamplingParams, prompt_path: Path | None) -> list[SamplingParams]:
    from multimodal_gen.entrypoints.cli.prompts import read_prompts

    if prompt_path is not None and params.prompt:
        raise InvalidRequest("prompt", params.prompt, "give either prompt or prompt_path")
    if prompt_path is not None:
        return read_prompts(prompt_path, params)
    if not params.prompt:
        raise InvalidRequest("prompt", params.prompt, "say what to show, or give prompt_path")
    return [params]


def _resolved(
    params: SamplingParams, model: ModelInfo, among: list[SamplingParams]
) -> SamplingParams:
    """With the model's defaults; of several prompts, the refusal names the one it is about."""
    from multimodal_gen.entrypoints.python.pictures import open_pictures
    from multimodal_gen.messages.codec import header_of
    from multimodal_gen.messages.validation import resolve

    try:
        params, pixels = open_pictures(params)
        return resolve(params, model, {name: header_of(each) for name, each in pixels.items()})
    except InvalidRequest as error:
        if len(among) == 1:
            raise
        raise InvalidRequest("prompt", params.prompt, error.message) from error


def _run(
    generator: DiffusionGenerator, prompts: list[SamplingParams], output_path: str, metadata: bool
) -> list[tuple[str, MultimodalGenError]]:
    """Generate and write all prompts; returns those that failed."""
    import asyncio

    from multimodal_gen.entrypoints.cli.progress_bar import ProgressBar
    from multimodal_gen.entrypoints.python.calls import run_all
    from multimodal_gen.entrypoints.python.generation_result import GenerationResult
    from multimodal_gen.postprocess.files import Destination

    resolved = [_resolved(prompt, generator.model, prompts) for prompt in prompts]
    counts = [prompt.num_outputs_per_prompt for prompt in prompts]
    first = [0, *accumulate(counts)]
    video = any((prompt.num_frames or 1) > 1 for prompt in resolved)
    destination = Destination.of(output_path, count=sum(counts), video=video)
    steps = [(p.num_inference_steps or 1) * n for p, n in zip(resolved, counts, strict=True)]

    async def run(index: int) -> None:
        async for event in generator.astream(prompts[index], previews=False):
            if isinstance(event, GenerationResult):
                paths = await asyncio.to_thread(event.write_to, destination, first[index], metadata)
                bar.finish(index, paths)
            else:
                bar.show(index, event)

    async def run_and_write(index: int) -> None:
        try:
            await run(index)
        except OSError as error:
            raise GenerationFailed(f"the output can't be written: {error}") from error

    with ProgressBar(steps) as bar:
        outcomes = asyncio.run(run_all(prompts, run_and_write))
    return [
        (prompt.prompt, outcome)
        for prompt, outcome in zip(prompts, outcomes, strict=True)
        if outcome is not None
    ]
