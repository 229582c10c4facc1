"""A language model rewrites prompts, in a phase of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import start_engine, submit_to
from policy_simulation import cost_model, request
from tiny_enhancers import expected, gpt2_folder, qwen3_folder

from multimodal_gen.client.request_handle import Update
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, InvalidCheckpoint, InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.plan import ENHANCED_TOKENS, Phase
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import check_offered
from multimodal_gen.runtime.enhancer.enhancer import PromptEnhancer
from multimodal_gen.runtime.enhancer.folder import EnhancerFolder
from multimodal_gen.runtime.enhancer.instruction import as_prompt
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.scheduling.policy import Policy

CPU = torch.device("cpu")
FAST = {"num_inference_steps": 2, "width": 32, "height": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen3_folder(tmp_path_factory.mktemp("enhancer") / "qwen3")


@pytest.fixture(scope="module")
def enhancer(folder: Path) -> PromptEnhancer:
    return EnhancerFolder(folder).load(torch.float32, CPU)


def finished(enhancer: PromptEnhancer, prompt: str, tokens: int) -> str:
    draft = enhancer.draft(prompt)
    while draft.text is None:
        assert enhancer.go_on(prompt, draft, tokens) > 0
    return draft.text


@pytest.mark.parametrize("make", [qwen3_folder, gpt2_folder])
def test_the_text_is_the_librarys_own_however_it_is_cut(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make(tmp_path / make.__name__)
    text = expected(folder, "a red cat")
    for tokens in (7, ENHANCED_TOKENS):
        fresh = EnhancerFolder(folder).load(torch.float32, CPU)
        assert finished(fresh, "a red cat", tokens) == text
    assert text != "a red cat"


def test_requests_with_the_same_prompt_share_a_draft(enhancer: PromptEnhancer) -> None:
    draft = enhancer.draft("a shared dog")
    enhancer.go_on("a shared dog", draft, 3)
    assert enhancer.draft("a shared dog") is draft


def test_work_that_was_planned_ahead_does_not_enhance_twice(enhancer: PromptEnhancer) -> None:
    params = SamplingParams(prompt="a green bird", seed=1)
    state = RequestState.of(Req(id="a", params=params))
    while (written := enhancer.enhance(state, 100, lambda: None))[1] is None:
        assert written[0] > 0
    assert state.params.prompt == written[1] != "a green bird"
    assert enhancer.enhance(state, 100, lambda: None) == (0, written[1])


def test_a_prompt_that_is_too_long_for_the_model_is_refused(enhancer: PromptEnhancer) -> None:
    with pytest.raises(InvalidRequest, match=r"is too long for enhance_prompt: .* of at most 768"):
        enhancer.draft("a cat " * 500)


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ("<think>\nA cat?\n</think>\n\n“A red\ncat”", "A red cat"),
        ('"A red cat"', "A red cat"),
        ('A "red" cat', 'A "red" cat'),
        ("<think>A cat", ""),
    ],
)
def test_answers_lose_what_is_not_the_prompt(answer: str, prompt: str) -> None:
    assert as_prompt(answer) == prompt


def changed(folder: Path, target: Path, **config: object) -> Path:
    shutil.copytree(folder, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


@pytest.mark.parametrize(
    ("config", "lacks", "told"),
    [
        ({"architectures": ["CLIPTextModel"]}, "", "must be a causal language model"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "", "auto_map is not supported"),
        ({}, "tokenizer.json", "tokenizer.json: no such file"),
        ({}, "model.safetensors", "could run code, so it is not read"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, config: dict[str, object], lacks: str, told: str
) -> None:
    other = changed(folder, tmp_path / "other", **config)
    (other / "pytorch_model.bin").touch()
    if lacks:
        (other / lacks).unlink()
    with pytest.raises(InvalidCheckpoint, match=told) as raised:
        EnhancerFolder(other)
    assert f"prompt_enhancer={str(other)!r}" in raised.value.message


def test_a_model_without_a_cache_of_keys_is_refused(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", architectures=["MambaForCausalLM"])
    with pytest.raises(InvalidCheckpoint, match="MambaForCausalLM is not supported"):
        EnhancerFolder(other)


@pytest.mark.parametrize(
    "template",
    [
        "{% for",
        "",
        "{{ raise_exception('no') }}",
        "{{ messages[5].content + 1 }}",
        "{{ ''.__class__ }}",
    ],
)
def test_a_chat_template_that_makes_no_text_is_refused(
    folder: Path, tmp_path: Path, template: str
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").write_text(template)
    with pytest.raises(InvalidCheckpoint, match="chat template: "):
        EnhancerFolder(tmp_path / "other").load(torch.float32, CPU)


def test_a_model_whose_task_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    other = EnhancerFolder(changed(folder, tmp_path / "other", max_position_embeddings=300))
    with pytest.raises(InvalidCheckpoint, match="max_position_embeddings=300 must be at least"):
        other.load(torch.float32, CPU)


def test_without_a_folder_there_is_an_error_before_anything_is_loaded() -> None:
    asked = SamplingParams(prompt="a cat", enhance_prompt=True)
    check_offered(replace(asked, enhance_prompt=False), EngineArgs())
    with pytest.raises(InvalidRequest, match="needs the server's option --prompt-enhancer"):
        check_offered(asked, EngineArgs())
    with pytest.raises(InvalidRequest, match="must be a folder"):
        EngineArgs(prompt_enhancer="nowhere")


def test_a_model_without_a_folder_refuses_to_enhance(engine: EngineProcess) -> None:
    with pytest.raises(InvalidRequest, match="needs the server's option --prompt-enhancer"):
        submit_to(engine, enhance_prompt=True)


def asked_to_enhance(name: str) -> object:
    req = request(name, steps=4)
    return type(req)(id=req.id, params=replace(req.params, enhance_prompt=True))


def test_a_prompt_is_encoded_once_it_is_written_and_not_before() -> None:
    policy = Policy(cost_model(), max_batch=4, max_queue=10)
    assert policy.submit(asked_to_enhance("a"), 0.0)
    work = policy.next(0.0)
    assert work is not None
    assert (work.phase, work.ids) == (Phase.ENHANCE, ("a",))
    told = {"seconds": 0.01, "prepared": {}, "now": 0.01}
    policy.completed(work, advanced=work.k, **told)
    again = policy.next(0.01)
    assert again is not None
    assert again.phase is Phase.ENHANCE
    policy.completed(again, advanced=0, enhanced={"a"}, **told)
    assert policy.progress("a", 0.02).phase == "encode"
    last = policy.next(0.02)
    assert last is not None
    assert last.phase is Phase.ENCODE


def test_a_prompt_has_no_more_tokens_than_allowed() -> None:
    policy = Policy(cost_model(), max_batch=4, max_queue=10)
    policy.submit(asked_to_enhance("a"), 0.0)
    tokens, now = 0, 0.0
    while (work := policy.next(now)) is not None and work.phase is Phase.ENHANCE:
        now += 0.01
        tokens += work.k
        policy.completed(work, advanced=work.k, seconds=0.01, prepared={}, now=now)
    assert tokens == ENHANCED_TOKENS


@pytest.fixture(
    scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["1-rank", "2-ranks"]
)
def enhancing(folder: Path, request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    with contextlib.chdir(folder.parent):  # A relative path is the caller's.
        started = start_engine(prompt_enhancer=folder.name, num_gpus=request.param)
    with started as engine:
        yield engine


def test_the_result_is_that_of_the_revised_prompt(enhancing: EngineProcess, folder: Path) -> None:
    prompt = "a red cat"
    handles = [
        submit_to(enhancing, prompt, enhance_prompt=True, **FAST),
        submit_to(enhancing, prompt, **FAST),
        submit_to(enhancing, prompt, enhance_prompt=True, seed=2, **FAST),
    ]
    first, plain, second = (handle.result(120) for handle in handles)
    text = expected(folder, prompt)
    assert first.revised_prompt == second.revised_prompt == text
    assert plain.revised_prompt is None
    itself = submit_to(enhancing, text, **FAST).result(120)
    assert np.abs(first.pixels.astype(int) - itself.pixels).max() <= 1
    assert np.abs(first.pixels.astype(int) - plain.pixels).max() > 1
    again = submit_to(enhancing, prompt, enhance_prompt=True, **FAST).result(120)
    assert again.timings["enhance"] < first.timings["enhance"]


def test_progress_tells_the_phase_in_which_a_request_can_be_cancelled(
    enhancing: EngineProcess,
) -> None:
    long = {**FAST, "num_inference_steps": 200}  # it must not end before the cancellation comes
    handle = submit_to(enhancing, "a blue bird", enhance_prompt=True, **long)
    events = iter(handle)
    while not (isinstance(event := next(events), Update) and event.phase == "enhance"):
        pass
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(60)
    other = submit_to(enhancing, "a blue bird", enhance_prompt=True, **FAST).result(120)
    assert other.revised_prompt
