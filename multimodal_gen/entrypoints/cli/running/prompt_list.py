"""The prompts of one command: all are checked, then generated concurrently and written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from itertools import accumulate, chain

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.entrypoints.cli.running.outputs import outputs_of
from multimodal_gen.entrypoints.cli.running.picture_cache import PictureCache
from multimodal_gen.entrypoints.cli.running.progress_bar import ProgressBar
from multimodal_gen.entrypoints.cli.running.result_source import CheckedRequest, ResultSource
from multimodal_gen.entrypoints.python.calls import run_all
from multimodal_gen.entrypoints.python.generation_result import GenerationResult
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import GenerationFailed, InvalidRequest, MultimodalGenError
from multimodal_gen.launch.expected_model import check_early
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import headers_of
from multimodal_gen.messages.validation import resolve, warnings_about


class PromptList:
    """Prompts, with their input images."""

    def __init__(self, prompts: Sequence[SamplingParams]) -> None:
        """Open every input image. Raises InvalidRequest."""
        self._prompts = prompts
        self._pictures = PictureCache()
        self._opened = []
        for prompt in prompts:
            with self._naming(prompt):
                params, pixels = open_pictures(prompt, self._pictures.open)
            self._opened.append((params, headers_of(pixels)))

    def check(self, model: ModelInfo | None) -> None:
        """Check all prompts by what is known of the model before it is loaded. Raises
        InvalidRequest."""
        for params, headers in self._opened:
            with self._naming(params):
                check_early(params, headers, model)

    def run(
        self, source: ResultSource, output_path: str, metadata: bool, *, force: bool
    ) -> list[tuple[str, MultimodalGenError]]:
        """Generate and write all prompts; return the failed ones with their errors.

        Raises InvalidRequest, before any is started, if the model rejects one.
        """
        model = source.wait_ready()
        resolved = self._resolve(model)
        told = [warnings_about(params, model, headers) for params, headers in self._opened]
        first = [0, *accumulate(params.num_outputs_per_prompt for params in resolved)]
        video = any((params.num_frames or 1) > 1 for params in resolved)
        outputs = outputs_of(output_path, resolved, force=force, video=video, sound=model.sound)

        async def generate(index: int) -> None:
            asked, (sent, _) = self._prompts[index], self._opened[index]
            _, pixels = open_pictures(asked, self._pictures.open)
            request = CheckedRequest(sent, resolved[index], pixels, told[index], asked.video_path)
            async with aclosing(source.stream(request)) as events:
                async for event in events:
                    if isinstance(event, GenerationResult):
                        to = (outputs, first[index], metadata)
                        written = await asyncio.to_thread(event.write_to, *to)
                        bar.finish(index, written, event.seeds)
                        lost = (outputs.warnings(output) for output in event.outputs)
                        bar.warn((*event.warnings, *chain.from_iterable(lost)))
                    else:
                        bar.show(index, event)

        async def generate_and_write(index: int) -> None:
            try:
                await generate(index)
            except OSError as error:
                raise GenerationFailed(f"the output can't be written: {error}") from error

        async def generate_all() -> list[MultimodalGenError | None]:
            async with source.running():
                return await run_all(self._prompts, generate_and_write)

        with ProgressBar([_steps(params) for params in resolved]) as bar:
            outcomes = asyncio.run(generate_all())
        return [
            (prompt.prompt, outcome)
            for prompt, outcome in zip(self._prompts, outcomes, strict=True)
            if outcome is not None
        ]

    def _resolve(self, model: ModelInfo) -> list[SamplingParams]:
        resolved = []
        for params, headers in self._opened:
            with self._naming(params):
                resolved.append(resolve(params, model, headers))
        return resolved

    @contextmanager
    def _naming(self, params: SamplingParams) -> Iterator[None]:
        """Add the prompt to an InvalidRequest if there are several prompts."""
        try:
            yield
        except InvalidRequest as error:
            if len(self._prompts) == 1:
                raise
            raise InvalidRequest("prompt", params.prompt, error.message) from error


def _steps(params: SamplingParams) -> int:
    return expected_steps(params) * params.num_outputs_per_prompt
