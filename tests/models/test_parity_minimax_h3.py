"""MiniMax-H3 gives the videos and the sound that diffusers' modular pipeline gives."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import single_files
import torch
from diffusers.loaders import lora_conversion_utils
from engineless import Output, Pictures, load, run, run_joined, start
from loras import LoadedLoras, write
from parity import LATENTS, check_parity, check_same_picture, relative
from tiny_checkpoints import reference
from tiny_checkpoints.oracle import stock_modular
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 32,
    "width": 64,
    "num_frames": 124,
    "num_inference_steps": 3,
}
REQUEST = SamplingParams(**CALL, seed=0)
FIRST, LAST, THIRD = picture(90, 70), picture(40, 60), picture(33, 128)
REFERENCE = {"image_use": "reference"}


@pytest.fixture(scope="module")
def folder(checkpoints: Checkpoints) -> Path:
    return checkpoints("minimax-h3")


def pixels_of(**pictures: Any) -> Pictures:
    return {name: np.asarray(each.convert("RGB")) for name, each in pictures.items()}


@pytest.mark.parametrize(
    ("own", "change"),
    [
        ({}, {"seed": 3, "height": 64, "num_inference_steps": 4}),
        ({}, {"width": 32, "num_frames": 141, "prompt": "a big RED cat, “riding” " * 20}),
        ({}, {"image": FIRST}),
        ({}, {"image": FIRST, "last_image": LAST, "height": 64, "width": 32}),
        ({}, {"last_image": LAST, "height": 64}),
        ({}, {"image": [FIRST, LAST, THIRD], "height": 64}),
        (REFERENCE, {"image": [FIRST]}),
    ],
    ids=["text", "long", "first frame", "both frames", "last frame", "references", "reference"],
)
def test_videos_and_their_sound_equal_diffusers(
    pipeline: ComposedPipeline, folder: Path, own: dict[str, Any], change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, own_call=own, **{**CALL, **change})


def original_lora(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """A LoRA for all kinds of layers, by the names of the model's authors."""
    config = json.loads((folder / "transformer" / "config.json").read_text())
    dim, mlp = config["hidden_size"], config["ffn_dim"]
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    block = {
        "attn.qkv_proj": (3 * inner, dim),
        "attn.out_proj": (dim, inner),
        "mlp.fc1": (2 * mlp, dim),
        "mlp.fc2": (dim, mlp),
    }
    shapes = {f"token_refiner.blocks.0.{name}": shape for name, shape in block.items()}
    shapes |= {f"blocks.{i}.{name}": shape for i in (0, 1) for name, shape in block.items()}
    shapes["blocks.0.adaln_proj.linear"] = (18 * dim, config["time_embed_dim"])
    shapes["final_layer.adaln_proj.linear"] = (2 * dim, config["time_embed_dim"])
    shapes["video_patch_proj"] = (dim, 4 * config["in_channels"])
    generator = torch.Generator().manual_seed(0)
    keys = {}
    for name, (out, into) in shapes.items():
        down, up = (torch.randn(*shape, generator=generator) for shape in ((4, into), (out, 4)))
        keys[f"{prefix}{name}.lora_A.weight"] = 0.5 * down / into**0.5
        keys[f"{prefix}{name}.lora_B.weight"] = up / 2
    return keys


@pytest.mark.parametrize("prefix", ["diffusion_model.", ""], ids=["comfyui", "bare"])
def test_loras_with_the_authors_names_equal_diffusers(
    pipeline: ComposedPipeline, folder: Path, tmp_path: Path, prefix: str
) -> None:
    file = write(tmp_path / "style.safetensors", original_lora(folder, prefix))
    stock = stock_modular(folder)
    stock.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="x")
    try:
        theirs = reference(folder, **CALL)
    finally:
        stock.unload_lora_weights()
    use = LoadedLoras(pipeline, tmp_path).use("style")
    ours = run(pipeline, REQUEST, loras=[use])
    assert relative(ours, theirs) <= LATENTS
    assert relative(run(pipeline, REQUEST), theirs) > 0.01


def by_head(rows: torch.Tensor, width: int) -> torch.Tensor:
    """The first head's query, key and value, then the next head's."""
    return rows.unflatten(0, (3, -1, width)).transpose(0, 1).flatten(0, 2)


def test_loras_of_diffsynth_have_queries_keys_and_values_head_by_head(
    pipeline: ComposedPipeline, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "transformer" / "config.json").read_text())
    plain = original_lora(folder, "")
    theirs = {
        key.replace(".weight", ".default.weight"): by_head(tensor, config["attention_head_dim"])
        if key.endswith("qkv_proj.lora_B.weight")
        else tensor
        for key, tensor in plain.items()
    }
    write(tmp_path / "plain.safetensors", plain)
    write(tmp_path / "theirs.safetensors", theirs)
    loras = LoadedLoras(pipeline, tmp_path)
    ours, expected = (run(pipeline, REQUEST, loras=[loras.use(n)]) for n in ("theirs", "plain"))
    assert relative(ours, expected) == 0


def test_alpha_of_the_metadata_is_that_of_all_modules(
    pipeline: ComposedPipeline, folder: Path, tmp_path: Path
) -> None:
    plain = original_lora(folder, "")  # of rank 4
    write(tmp_path / "plain.safetensors", plain)
    write(tmp_path / "half.safetensors", plain, {"alpha": "2.0"})
    write(tmp_path / "wrong.safetensors", plain, {"alpha": "two"})
    loras = LoadedLoras(pipeline, tmp_path)
    ours, expected = (
        run(pipeline, REQUEST, loras=[each])
        for each in (loras.use("half"), loras.use("plain", scale=0.5))
    )
    assert relative(ours, expected) <= LATENTS
    with pytest.raises(InvalidRequest, match="alpha='two' must be a number"):
        loras.use("wrong")


def test_diffusers_takes_the_same_order_for_that_of_diffsynth() -> None:
    name, up = "blocks.0.attn.qkv_proj.lora_{}.default.weight", torch.randn(2 * 3 * 128, 4)
    found = lora_conversion_utils._convert_non_diffusers_minimax_h3_lora_to_diffusers(
        {name.format("A"): torch.randn(4, 8), name.format("B"): by_head(up, 128)}
    )
    parts = (found[f"transformer.transformer_blocks.0.attn.to_{x}.lora_B.weight"] for x in "qkv")
    assert torch.equal(torch.cat([*parts]), up)


def test_pruned_single_files_are_refused_by_their_name(folder: Path, tmp_path: Path) -> None:
    tensors = single_files.minimax_h3(folder)
    kept = {name: each for name, each in tensors.items() if "time_embedder" not in name}
    table = {"adaln_t_table": torch.zeros(10, 4)}
    file = write(tmp_path / "pruned.safetensors", {**kept, **table})
    with pytest.raises(InvalidCheckpoint, match="is a pruned MiniMax-H3"):
        Checkpoint.open(folder, file)


def test_a_text_is_refined_once_and_again_where_a_lora_begins(
    pipeline: ComposedPipeline, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "style.safetensors", original_lora(folder, ""))
    use = LoadedLoras(pipeline, tmp_path).use("style")
    transformer, refined = pipeline.components["transformer"], []
    of_all = transformer.refined
    monkeypatch.setattr(
        transformer, "refined", lambda *given: refined.append(given[2]) or of_all(*given)
    )
    request = replace(REQUEST, num_inference_steps=5)
    run(pipeline, request)
    assert refined == [None]
    run(pipeline, request, loras=[use._replace(start=0.5)])
    assert [each is not None for each in refined[1:]] == [False, True]


def test_sound_is_as_long_as_the_video(pipeline: ComposedPipeline) -> None:
    made = run(pipeline, REQUEST)
    assert made.pixels.shape == (124, 32, 64, 3)
    assert made.sound is not None
    assert made.sound.shape == (2, 207 * 4)
    assert made.sound.std() > 0.1


@pytest.mark.parametrize(
    "pictures",
    [
        [{}, {}, {}],
        [{"image": FIRST, "last_image": LAST}, {"image": THIRD, "last_image": FIRST}],
        [{"image": FIRST}, {"last_image": LAST}],
        [{"image": FIRST, "image_2": LAST}, {"image": FIRST, "image_2": LAST}],
    ],
    ids=["text", "frames", "one end", "references"],
)
def test_requests_with_unlike_texts_and_steps_share_a_batch(
    pipeline: ComposedPipeline, pictures: list[dict[str, Any]]
) -> None:
    texts = ("a red heart", "a dog that sleeps on the warm sand", "")
    requests = [
        replace(REQUEST, prompt=text, seed=seed, num_inference_steps=3 + seed)
        for seed, text in zip(range(len(pictures)), texts, strict=False)
    ]
    shown = [pixels_of(**each) for each in pictures]
    together = run_joined(pipeline, requests, joins=[0, 1, 0][: len(shown)], pictures=shown)
    for params, given, other in zip(requests, shown, together, strict=True):
        own = run(pipeline, params, given)
        check_same_picture(own, other)
        assert float(np.abs(sound_of(own) - sound_of(other)).max()) < 1e-3


def test_requests_of_unlike_pictures_do_not_share_a_batch(pipeline: ComposedPipeline) -> None:
    shown = [
        pixels_of(),
        pixels_of(image=FIRST),
        pixels_of(image=FIRST, last_image=LAST),
        pixels_of(image=FIRST, image_2=LAST),
        pixels_of(image=FIRST, image_2=THIRD),
    ]
    keys = [pipeline.batch_key(start(pipeline, REQUEST, each), 0) for each in shown]
    assert len(set(keys)) == len(keys)


def test_the_last_level_of_the_steps_is_not_evaluated(pipeline: ComposedPipeline) -> None:
    solver, _ = start(pipeline, replace(REQUEST, num_inference_steps=5)).running()
    assert solver.num_evaluations == 4


@pytest.mark.parametrize("solver", ["unipc", "flow_heun"])
def test_other_solvers_make_a_similar_video(pipeline: ComposedPipeline, solver: str) -> None:
    params = replace(REQUEST, num_inference_steps=12)
    usual, other = (run(pipeline, replace(params, scheduler=name)) for name in (None, solver))
    far = run(pipeline, replace(params, seed=1))
    apart = [np.abs(usual.pixels.astype(int) - x.pixels).mean() for x in (other, far)]
    assert apart[0] < apart[1] / 2


def test_shift_and_levels_of_a_request_are_the_videos(pipeline: ComposedPipeline) -> None:
    levels = {"num_inference_steps": 2, "sigmas": (1.0, 0.5), "flow_shift": 1.0}
    state = start(pipeline, SamplingParams(**{**CALL, **levels}))
    video, sound = state.running()[0].timesteps.unbind(1)
    assert video.tolist() == [1000, 500]
    assert sound.tolist() == [1000, 750]


def test_a_preview_is_a_small_picture(pipeline: ComposedPipeline) -> None:
    state = start(pipeline, REQUEST, previews=True)
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert state.preview is not None
    assert state.preview.shape == (32, 64, 3)


def _by_text(value: Any) -> str:
    """Part of a test's name, which must be the same in every process: pictures' texts are not."""
    return "+".join(value) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("change", "shown", "field", "allowed"),
    [
        ({"num_frames": 125}, {}, "num_frames", "124 more than a multiple of 17; 124 or 141"),
        ({"num_frames": 107}, {}, "num_frames", "124 to 345"),
        ({"width": 48}, {}, "width", "multiple of 32"),
        ({"num_inference_steps": 1}, {}, "num_inference_steps", "at least 2"),
        ({"image_use": "mask"}, {}, "image_use", "must be frame or reference"),
        ({"prompt": "a <|image_pad|>"}, {}, "prompt", "must not contain"),
        (
            {"image_use": "frame"},
            {"image": FIRST, "image_2": LAST},
            "image_path",
            "one image is the first frame",
        ),
        (
            {},
            {"image": FIRST, "image_2": LAST, "last_image": LAST},
            "last_image_path",
            "not allowed with references",
        ),
        (REFERENCE, {"image": picture(40, 200)}, "image_path", "within 1:4 and 4:1"),
        (
            {},
            {"image": FIRST} | {f"image_{number}": FIRST for number in range(2, 11)},
            "image_path",
            "at most 9",
        ),
    ],
    ids=_by_text,
)
def test_what_the_model_does_not_make_is_one_clear_error(
    pipeline: ComposedPipeline,
    change: dict[str, Any],
    shown: dict[str, Any],
    field: str,
    allowed: str,
) -> None:
    with pytest.raises(InvalidRequest, match=allowed) as caught:
        start(pipeline, replace(REQUEST, **change), pixels_of(**shown))
    assert caught.value.field == field


def edited(folder: Path, to: Path, *missing: str, **entries: Any) -> Path:
    """A copy without these components, and with these entries of its index changed."""
    shutil.copytree(folder, to)
    path = to / "modular_model_index.json"
    index = json.loads(path.read_text()) | entries
    for name in missing:
        del index[name]
        shutil.rmtree(to / name)
    path.write_text(json.dumps(index))
    return to


def test_a_task_whose_transformer_is_missing_is_left_out(folder: Path, tmp_path: Path) -> None:
    frames = load(edited(folder, tmp_path / "frames", "transformer_ref"))
    assert frames.tasks == ("text-to-video", "image-to-video")
    with pytest.raises(InvalidRequest, match="no transformer_ref"):
        start(frames, replace(REQUEST, **REFERENCE), pixels_of(image=FIRST))
    references = load(edited(folder, tmp_path / "references", "transformer"))
    assert references.tasks == ("reference-to-video",)
    shown = pixels_of(image=FIRST)
    assert np.array_equal(
        run(references, REQUEST, shown).pixels,
        run(load(folder), replace(REQUEST, **REFERENCE), shown).pixels,
    )


@pytest.mark.parametrize(
    ("missing", "entries", "message"),
    [
        (("transformer", "transformer_ref"), {}, "needs a transformer or a transformer_ref"),
        (("vae",), {}, "needs a vae"),
        ((), {"vae": ["diffusers", "AutoencoderKLWan", {}]}, "requires AutoencoderKLMiniMaxH3"),
        ((), {"reference_image_short_edge": 10**9}, "reference_image_short_edge=1000000000"),
        ((), {"transformer": ["os", "system", {}]}, "not an allowed class"),
    ],
    ids=str,
)
def test_checkpoints_that_do_not_fit_are_refused(
    folder: Path,
    tmp_path: Path,
    missing: tuple[str, ...],
    entries: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        load(edited(folder, tmp_path / "copy", *missing, **entries))


def test_a_request_runs_one_of_the_transformers(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_frames = start(pipeline, REQUEST, pixels_of(image=FIRST))
    of_references = start(pipeline, REQUEST, pixels_of(image=FIRST, image_2=LAST))
    assert pipeline.denoisers_now([of_frames]) == ("transformer",)
    assert pipeline.denoisers_now([of_references]) == ("transformer_ref",)
    needed = type(pipeline).needed_together([*pipeline.components])
    assert (Phase.DENOISE, ("transformer", "vae")) in needed
    assert (Phase.DENOISE, ("transformer_ref", "vae")) in needed
    assert (Phase.DECODE, ("vae", "audio_vae")) in needed


def sound_of(output: Output) -> Any:
    assert output.sound is not None
    return output.sound
