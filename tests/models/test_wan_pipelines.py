"""Wan's experts, its optional components, and batches of texts and pictures."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import Output, finish, left, load, run, start
from parity import check_parity
from safetensors.torch import load_file, save_file

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

Checkpoints = Callable[..., Path]

BASE = SamplingParams(
    prompt="a red heart",
    width=96,
    height=64,
    num_frames=5,
    num_inference_steps=4,
    max_sequence_length=16,
)
PICTURE = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)


def edited(folder: Path, to: Path, **change: Any) -> Path:
    """A copy whose index says something else."""
    copy = Path(shutil.copytree(folder, to))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **change}))
    return copy


def run_together(pipeline: ComposedPipeline, states: Sequence[RequestState]) -> list[Output]:
    """All that share a key in one batch, as the scheduler would have it."""
    while any(left(state) for state in states):
        groups: dict[str, list[RequestState]] = {}
        for state in states:
            if left(state):
                groups.setdefault(pipeline.batch_key(state, state.evaluation), []).append(state)
        for group in groups.values():
            pipeline.forward(Phase.DENOISE, group, 1)
    return [finish(pipeline, state) for state in states]


def apart(a: Output, b: Output) -> int:
    return int(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max())


@pytest.mark.parametrize("name", ["wan22", "wan22-i2v"])
def test_requests_at_unlike_experts_do_not_share_an_evaluation(
    name: str, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    pictures = {"image": PICTURE} if "i2v" in name else {}
    requests = [
        replace(BASE, guidance_scale=4.0, guidance_scale_2=2.0),
        replace(BASE, guidance_scale=3.0, num_inference_steps=7, seed=1),
        replace(BASE, guidance_scale=1.0, flow_shift=9.0, seed=2),
    ]
    alone = [run(pipeline, params, pictures) for params in requests]
    states = [start(pipeline, params, pictures) for params in requests]
    keys = [{pipeline.batch_key(s, i) for i in range(left(s))} for s in states]
    assert [len(own) for own in keys] == [2, 2, 2]
    assert len(set.union(*keys)) == 2
    for a, b in zip(alone, run_together(pipeline, states), strict=True):
        assert apart(a, b) <= 1


def test_videos_of_a_text_and_of_a_picture_share_a_batch(checkpoints: Checkpoints) -> None:
    pipeline = load(checkpoints("wan22-ti2v"))
    assert pipeline.tasks == ("text-to-video", "image-to-video")
    given: list[dict[str, Any]] = [{}, {"image": PICTURE}, {"image": 255 - PICTURE}]
    alone = [run(pipeline, BASE, pictures) for pictures in given]
    states = [start(pipeline, BASE, pictures) for pictures in given]
    assert len({pipeline.batch_key(state, 0) for state in states}) == 1
    for a, b in zip(alone, run_together(pipeline, states), strict=True):
        assert apart(a, b) <= 1
    assert apart(alone[0], alone[1]) > 1
    assert apart(alone[1], alone[2]) > 1


def test_videos_of_a_text_and_of_a_video_share_a_batch(checkpoints: Checkpoints) -> None:
    pipeline = load(checkpoints("wan"))
    video = np.random.default_rng(1).integers(0, 256, (7, 50, 71, 3), dtype=np.uint8)
    given = [(BASE, {}), (replace(BASE, strength=0.6), {"video": video})]
    alone = [run(pipeline, *each) for each in given]
    states = [start(pipeline, *each) for each in given]
    assert [state.evaluation for state in states] == [0, 2]
    assert len({pipeline.batch_key(state, state.evaluation) for state in states}) == 1
    for a, b in zip(alone, run_together(pipeline, states), strict=True):
        assert apart(a, b) <= 1
    assert apart(*alone) > 1


def test_a_model_for_texts_and_pictures_may_be_saved_as_either_class(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("wan22-ti2v")
    other = edited(folder, tmp_path / "wan", _class_name="WanImageToVideoPipeline")
    outputs = [run(load(each), BASE, {"image": PICTURE}) for each in (folder, other)]
    assert apart(*outputs) == 0


def test_the_second_guidance_follows_the_first_where_only_that_is_said(
    checkpoints: Checkpoints,
) -> None:
    model = load(checkpoints("wan22")).model_info("test")
    said = {"prompt": "a dog", "guidance_scale": 6.0}
    assert resolve(SamplingParams(prompt="a dog"), model).guidance_scale_2 == 3.0
    assert resolve(SamplingParams(**said), model).guidance_scale_2 is None
    assert resolve(SamplingParams(**said, guidance_scale_2=2.0), model).guidance_scale_2 == 2.0


def test_a_model_with_one_expert_has_no_second_guidance(checkpoints: Checkpoints) -> None:
    model = load(checkpoints("wan")).model_info("test")
    with pytest.raises(InvalidRequest, match="guidance_scale_2"):
        resolve(SamplingParams(prompt="a dog", guidance_scale_2=2.0), model)


@pytest.mark.parametrize(("missing", "ratio"), [("transformer", 1.0), ("transformer_2", 0.0)])
def test_an_expert_without_timesteps_may_be_left_out(
    missing: str, ratio: float, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    change = {missing: [None, None], "boundary_ratio": ratio}
    folder = edited(checkpoints("wan22"), tmp_path / "wan", **change)
    call = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 3}
    check_parity(
        load(folder), folder, prompt="a cat", negative_prompt="", guidance_scale=4.0, **call
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transformer_2": [None, None]}, "transformer_2"),
        ({"transformer": [None, None]}, "transformer"),
        ({"boundary_ratio": 900}, "boundary_ratio=900"),
    ],
    ids=str,
)
def test_an_expert_that_is_missing_or_never_used_is_named(
    change: dict[str, Any], said: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    with pytest.raises(InvalidCheckpoint, match=said):
        load(edited(checkpoints("wan22"), tmp_path / "wan", **change))


def test_a_second_transformer_without_a_boundary_is_not_loaded(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = edited(checkpoints("wan22"), tmp_path / "wan", boundary_ratio=None)
    assert "transformer_2" not in load(folder).components


def test_a_model_that_sees_the_picture_needs_an_image_encoder(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    change = {"image_encoder": [None, None]}
    with pytest.raises(InvalidCheckpoint, match="image_encoder"):
        load(edited(checkpoints("wan-i2v"), tmp_path / "wan", **change))


def test_published_tensors_without_effect_are_ignored(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = edited(checkpoints("wan-i2v"), tmp_path / "wan")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(
        {**load_file(file), "blocks.0.attn2.norm_added_q.weight": torch.ones(48)},
        file,
        metadata={"format": "pt"},
    )
    load(folder)


def test_what_half_precision_would_spoil_is_kept_in_float32(checkpoints: Checkpoints) -> None:
    pipeline = load(checkpoints("wan-i2v"), torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in pipeline.denoiser_module.named_parameters()}
    kept = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert {name.split(".")[0] for name in kept} == {
        "time_embedder",
        "out_modulation",
        "blocks",
        "image_embedder",
    }
    inner = [name for name in kept if name.startswith(("blocks", "image_embedder"))]
    assert all("norm" in name or ".modulation." in name for name in inner)
    output = run(pipeline, replace(BASE, num_inference_steps=2), {"image": PICTURE})
    assert output.pixels.shape == (5, 64, 96, 3)
