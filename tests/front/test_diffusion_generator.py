"""DiffusionGenerator, on an engine that other tests share."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import is_running, sharing_happens

import multimodal_gen
from multimodal_gen import DiffusionGenerator, GenerationResult, SamplingParams
from multimodal_gen.entrypoints.python.generation_result import Progress
from multimodal_gen.errors import EngineNotReady, InvalidCheckpoint, InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters

LONG = 1000
"""Steps of a request that is still running when a test looks at it."""
SMALL = {"width": 32, "height": 32, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def generator(engine: EngineProcess) -> Iterator[DiffusionGenerator]:
    engine.wait_ready(300)
    wait_until_idle(engine)
    with DiffusionGenerator.connect(engine.address) as generator:
        yield generator


def pixels(result: GenerationResult) -> np.ndarray:
    return np.asarray(result.images[0]).astype(int)


def wait_until_idle(engine: EngineProcess) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        health = engine.client.health(60)
        if not health.running + health.waiting:
            return
        time.sleep(0.05)
    raise AssertionError("the engine still works")


def test_one_prompt_gives_one_result(generator: DiffusionGenerator) -> None:
    result = generator.generate("a red heart", seed=7, num_inference_steps=4)
    assert [image.size for image in result.images] == [(96, 96)]
    assert (result.frames, result.fps, result.seeds) == (None, None, [7])
    assert result.batch_sizes == [1, 1, 1, 1]
    assert result.timings["denoise"] > 0


def test_several_outputs_have_the_seeds_that_follow(generator: DiffusionGenerator) -> None:
    both = generator.generate("a dog", seed=7, num_outputs_per_prompt=2, **SMALL)
    second = generator.generate("a dog", seed=8, **SMALL)
    assert both.seeds == [7, 8]
    assert np.abs(np.asarray(both.images[1]).astype(int) - pixels(second)).max() <= 1


def test_without_a_seed_each_call_gets_one_that_gives_the_picture_again(
    generator: DiffusionGenerator,
) -> None:
    first, other = (generator.generate("a dog", **SMALL) for _ in range(2))
    assert first.seeds != other.seeds
    again = generator.generate("a dog", seed=first.seeds[0], **SMALL)
    assert np.abs(pixels(again) - pixels(first)).max() <= 1


def test_a_list_gives_a_list_in_order_and_shares_batches(generator: DiffusionGenerator) -> None:
    prompts = ["a pizza", "a dog", "a cat"]

    def made() -> list[int]:
        results = generator.generate(prompts, seed=1, num_inference_steps=40)
        assert [result.params.prompt for result in results] == prompts
        return [size for result in results for size in result.batch_sizes]

    assert sharing_happens(made)


def test_a_list_may_be_longer_than_the_queue(generator: DiffusionGenerator) -> None:
    results = generator.generate([f"prompt {i}" for i in range(100)], **SMALL)
    assert len(results) == 100


def test_sampling_params_stand_for_a_prompt_and_keywords_override_them(
    generator: DiffusionGenerator,
) -> None:
    params = SamplingParams(prompt="a dog", width=64, height=32, num_inference_steps=3, seed=3)
    result, other = generator.generate([params, "a cat"], num_inference_steps=2, width=48)
    assert (result.images[0].size, result.seeds, len(result.batch_sizes)) == ((48, 32), [3], 2)
    assert other.images[0].size == (48, 96)


def test_an_unknown_keyword_is_named_with_the_right_one(generator: DiffusionGenerator) -> None:
    with pytest.raises(InvalidRequest, match=r"step=3: unknown; did you mean num_inference_steps"):
        generator.generate("a dog", step=3)
    with pytest.raises(InvalidRequest, match="step=3: unknown; did you mean num_inference_steps"):
        generator.stream("a dog", step=3)


@pytest.mark.parametrize("prompt", [None, 3, {"prompt": "a"}, ["a", 3]])
def test_a_prompt_that_is_no_text_is_refused(generator: DiffusionGenerator, prompt: object) -> None:
    with pytest.raises(InvalidRequest, match="prompt="):
        generator.generate(prompt)


def test_a_picture_to_start_from_is_refused_by_a_model_that_takes_none(
    generator: DiffusionGenerator,
) -> None:
    with pytest.raises(InvalidRequest, match="image_path"):
        generator.generate("a dog", image_path="dog.png")


def test_of_a_list_the_first_error_comes_after_all_ended_with_the_siblings(
    generator: DiffusionGenerator,
) -> None:
    bad = SamplingParams(prompt="bad", width=33, seed=1)
    with pytest.raises(InvalidRequest, match="width=33") as caught:
        generator.generate(["a dog", bad, "a cat"], num_inference_steps=3)
    dog, error, cat = caught.value.siblings
    assert error is caught.value
    assert [dog.params.prompt, cat.params.prompt] == ["a dog", "a cat"]


def test_a_stream_tells_progress_then_the_result(generator: DiffusionGenerator) -> None:
    *progress, result = generator.stream("a rocket", seed=1, num_inference_steps=300)
    assert isinstance(result, GenerationResult)
    steps = [event.step for event in progress if isinstance(event, Progress)]
    assert len(steps) == len(progress) > 1
    assert steps == sorted(steps)
    assert all(event.total == 300 for event in progress)


def test_progress_shows_what_is_expected_unless_told_not_to(generator: DiffusionGenerator) -> None:
    def shown(**options: Any) -> list[Any]:
        events = generator.stream("a rocket", seed=1, num_inference_steps=100, **options)
        return [event.preview for event in events if isinstance(event, Progress)]

    assert any(preview is not None and preview.mode == "RGB" for preview in shown())
    assert all(preview is None for preview in shown(previews=False))


def test_progress_of_several_outputs_is_of_all_together(generator: DiffusionGenerator) -> None:
    *progress, result = generator.stream(
        "a rocket", num_outputs_per_prompt=3, num_inference_steps=50
    )
    assert len(result.images) == 3
    assert {event.total for event in progress} == {150}


def test_leaving_a_stream_cancels_the_request(
    generator: DiffusionGenerator, engine: EngineProcess
) -> None:
    for _ in generator.stream("a rocket", num_inference_steps=LONG, num_outputs_per_prompt=4):
        break
    wait_until_idle(engine)


def test_cancelling_the_task_cancels_the_request(
    generator: DiffusionGenerator, engine: EngineProcess
) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(0.3):
            await generator.agenerate("a rocket", num_inference_steps=LONG)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    wait_until_idle(engine)


def test_coroutines_share_batches(generator: DiffusionGenerator) -> None:
    async def both() -> list[GenerationResult]:
        calls = (generator.agenerate(name, num_inference_steps=40) for name in ("a dog", "a cat"))
        return await asyncio.gather(*calls)

    def made() -> list[int]:
        return [size for result in asyncio.run(both()) for size in result.batch_sizes]

    assert sharing_happens(made)


def test_an_async_stream_ends_with_the_result(generator: DiffusionGenerator) -> None:
    async def last() -> object:
        return [event async for event in generator.astream("a dog", num_inference_steps=50)][-1]

    assert isinstance(asyncio.run(last()), GenerationResult)


def test_blocking_calls_work_inside_a_running_loop(generator: DiffusionGenerator) -> None:
    async def notebook_cell() -> int:
        return len(generator.generate("a dog", **SMALL).images)

    assert asyncio.run(notebook_cell()) == 1


def test_many_threads_may_call_at_once(generator: DiffusionGenerator) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda seed: generator.generate("a dog", seed=seed), range(8)))
    assert [result.seeds for result in results] == [[seed] for seed in range(8)]


def test_a_saved_picture_can_be_made_again_from_its_file(
    generator: DiffusionGenerator, tmp_path: Path
) -> None:
    result = generator.generate("a dog", num_outputs_per_prompt=2, **SMALL)
    paths = result.save(tmp_path / "dog.png")
    assert [path.name for path in paths] == ["dog-0.png", "dog-1.png"]
    recipe = read_parameters(paths[1])
    assert recipe.model == generator.model.name
    again = generator.generate(recipe.params)
    assert np.abs(pixels(again) - np.asarray(result.images[1]).astype(int)).max() <= 1


def test_a_closed_generator_says_so_and_leaves_a_shared_engine_running(
    engine: EngineProcess,
) -> None:
    generator = DiffusionGenerator.connect(engine.address)
    stream = generator.stream("a dog", num_inference_steps=LONG)
    next(stream)
    generator.close()
    generator.close()
    with pytest.raises(EngineNotReady, match="closed"):
        next(stream)
    with pytest.raises(EngineNotReady, match="closed"):
        generator.generate("a dog")
    assert engine.client.died is None
    wait_until_idle(engine)


def test_connecting_to_nobody_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineNotReady, match="no engine answers"):
        DiffusionGenerator.connect(f"ipc://{tmp_path}/nobody", timeout=0.1)
    with pytest.raises(InvalidRequest, match="must start with ipc://"):
        DiffusionGenerator.connect("somewhere")


def test_bad_arguments_are_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidRequest, match=r"gpus=2: unknown; did you mean num_gpus"):
        DiffusionGenerator.from_pretrained(gpus=2)
    with pytest.raises(InvalidRequest, match="port=1: is an option of `multimodal-gen serve`"):
        DiffusionGenerator.from_pretrained(port=1)
    with pytest.raises(InvalidRequest, match="num_gpus='2': Expected `int`"):
        DiffusionGenerator.from_pretrained(num_gpus="2")
    with pytest.raises(InvalidCheckpoint, match="no such file or folder"):
        DiffusionGenerator.from_pretrained("/no/such/folder")


def test_a_checkpoint_that_cannot_be_loaded_raises_why(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    with pytest.raises(InvalidCheckpoint, match="NoSuchPipeline"):
        DiffusionGenerator.from_pretrained(tmp_path, device="cpu")


SCRIPT = """
import psutil
from multimodal_gen import DiffusionGenerator

def processes():
    return [child.pid for child in psutil.Process().children(recursive=True)]

generator = DiffusionGenerator.from_pretrained(device="cpu")
print(generator.generate("a red heart", num_inference_steps=2).images[0].size)
del generator
print(processes())
generator = DiffusionGenerator.from_pretrained(device="cpu")
print(processes())
"""


def test_a_script_needs_no_main_guard_and_may_forget_to_close(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(multimodal_gen.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    size, after_del, at_exit = done.stdout.splitlines()
    assert (size, after_del, done.stderr, done.returncode) == ("(96, 96)", "[]", "", 0)
    assert len(pids := ast.literal_eval(at_exit)) >= 2
    assert not any(map(is_running, pids))
