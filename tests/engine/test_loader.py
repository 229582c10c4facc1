"""Checkpoints load whatever their files are like, or end in one clear InvalidCheckpoint."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load, run
from mapped_files import mapped
from parity import check_same_picture
from safetensors.torch import load_file, save_file

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint

Checkpoints = Callable[..., Path]
SMALL = SamplingParams(prompt="a red heart", width=32, height=48, num_inference_steps=2)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A checkpoint of the test's own, to be broken."""
    return Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    content = {**json.loads((folder / name).read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / name).write_text(json.dumps(kept))


def refused(folder: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as error:
        load(folder)
    return str(error.value)


@pytest.mark.parametrize("name", ["flux-schnell", "sd15", "sdxl"])
@pytest.mark.parametrize(
    "options",
    [
        {"shard_bytes": "50KB"},
        {"variant": "fp16"},
        {"variant": "fp16", "shard_bytes": "50KB"},
    ],
    ids=lambda options: " ".join(options),
)
def test_sharded_and_variant_files_give_the_same_picture(
    name: str, options: dict[str, str], checkpoints: Checkpoints
) -> None:
    plain = run(load(checkpoints(name)), SMALL)
    other = run(load(checkpoints(name, **options)), SMALL)
    check_same_picture(plain, other)


@pytest.mark.parametrize("name", ["flux-dev", "sd15", "sdxl", "wan"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_bf16_checkpoint_runs_in_each_dtype(
    name: str, dtype: torch.dtype, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name, dtype=torch.bfloat16), dtype)
    frames = {"num_frames": 5} if name == "wan" else {}
    output = run(pipeline, SamplingParams(width=32, height=48, num_inference_steps=2, **frames))
    assert output.pixels.std() > 1
    assert dtype in {parameter.dtype for parameter in pipeline.denoiser_module.parameters()}


def test_the_plain_file_is_preferred_to_a_variant(folder: Path) -> None:
    (folder / "transformer/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not weights")
    load(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_tensors_that_are_stored_in_the_right_dtype_stay_in_the_file(folder: Path) -> None:
    transformer = load(folder).denoiser_module
    spans = mapped(folder / WEIGHTS)
    in_file = {
        name
        for name, parameter in transformer.named_parameters()
        if any(parameter.data_ptr() in span for span in spans)
    }
    assert "x_embedder.weight" in in_file
    assert "blocks.0.image.mlp_in.weight" in in_file
    assert "blocks.0.image.qkv.weight" not in in_file  # joined from three


def test_defaults_beside_the_checkpoint_override_the_familys(folder: Path) -> None:
    (folder / "generation_defaults.json").write_text('{"width": 96, "num_inference_steps": 9}')
    defaults = load(folder).model_info("test").defaults
    assert (defaults.width, defaults.height, defaults.num_inference_steps) == (96, 1024, 9)


def test_flux_defaults_follow_whether_guidance_is_embedded(checkpoints: Checkpoints) -> None:
    dev, schnell = (load(checkpoints(name)).defaults for name in ("flux-dev", "flux-schnell"))
    assert (dev.num_inference_steps, dev.guidance_scale, dev.max_sequence_length) == (28, 3.5, 512)
    assert (schnell.num_inference_steps, schnell.max_sequence_length) == (4, 256)


def test_links_into_the_hubs_blobs_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    shutil.move(snapshot / WEIGHTS, blobs / "0123")
    (snapshot / WEIGHTS).symlink_to(blobs / "0123")
    load(snapshot)
    (tmp_path / "my-model").symlink_to(snapshot)
    load(tmp_path / "my-model")


JSON_CHANGES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("model_index.json", {"_class_name": "Evil"}, ["Evil", "FluxPipeline", "WanPipeline"]),
    ("model_index.json", {"_class_name": None}, ["_class_name"]),
    ("model_index.json", {"vae": ["os", "system"]}, ["vae", "os.system", "AutoencoderKL"]),
    ("model_index.json", {"vae": ["diffusers", "UNet2DConditionModel"]}, ["vae", "AutoencoderKL"]),
    ("model_index.json", {"vae": "AutoencoderKL", "x": 1}, ["vae"]),
    ("model_index.json", {"vae": None}, ["vae", "AutoencoderKL"]),
    ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, ["DDIMScheduler"]),
    (
        "transformer/config.json",
        {"num_layers": 3},
        ["transformer", "missing", "transformer_blocks.2"],
    ),
    ("transformer/config.json", {"num_layers": 1}, ["unexpected", "transformer_blocks.1"]),
    (
        "transformer/config.json",
        {"num_attention_heads": 2},
        ["wrong shape", "x_embedder.weight", "32"],
    ),
    ("transformer/config.json", {"speed": 1}, ["transformer/config.json", "speed"]),
    ("transformer/config.json", {"quantization_config": {"a": 1}}, ["quantization_config"]),
    ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.Y"}}, ["text_encoder", "auto_map"]),
    ("text_encoder/config.json", {"num_hidden_layers": 9}, ["text_encoder", "missing"]),
    ("text_encoder_2/config.json", {"d_ff": 7}, ["text_encoder_2"]),
    ("vae/config.json", {"auto_map": {"a": "b"}}, ["vae", "auto_map"]),
    ("vae/config.json", {"layers_per_block": 4}, ["vae", "missing"]),
    ("vae/config.json", {"latent_channels": 8}, ["vae"]),
    (
        "tokenizer/tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["x.Y", None]}},
        ["auto_map"],
    ),
    ("tokenizer/tokenizer_config.json", {"pad_token": "new"}, ["tokenizer: has 654 tokens"]),
    ("tokenizer_2/tokenizer_config.json", {"model_max_length": "x"}, ["tokenizer_2", "'x'"]),
    ("text_encoder/config.json", {"hidden_size": "x"}, ["text_encoder", "hidden_size"]),
    ("text_encoder/config.json", {"intermediate_size": 32}, ["text_encoder", "mlp.fc1.weight"]),
    ("vae/config.json", {"act_fn": 5}, ["vae", "AutoencoderKL"]),
    ("vae/config.json", {"block_out_channels": []}, ["vae"]),
    ("transformer/config.json", {"num_layers": 10**9}, ["transformer/config.json", "num_layers"]),
    ("transformer/config.json", {"num_attention_heads": 10**9}, ["num_attention_heads"]),
    ("transformer/config.json", {"out_channels": "x"}, ["transformer/config.json", "out_channels"]),
    ("vae/config.json", {"layers_per_block": 10**9}, ["vae/config.json", "layers_per_block"]),
    ("text_encoder_2/config.json", {"num_layers": -1}, ["text_encoder_2/config.json", "-1"]),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, ["num_train_timesteps"]),
    ("scheduler/scheduler_config.json", {"prediction_type": "x"}, ["prediction_type", "epsilon"]),
    ("scheduler/scheduler_config.json", {"base_shift": "x"}, ["scheduler_config.json"]),
]


@pytest.mark.parametrize(("name", "changes", "told"), JSON_CHANGES, ids=str)
def test_a_wrong_config_is_named(
    name: str, changes: dict[str, Any], told: list[str], folder: Path
) -> None:
    edit(folder, name, **changes)
    message = refused(folder)
    assert all(part in message for part in told), message


@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json", "transformer/config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "\x00" * 10, "[" * 100_000])
def test_broken_json_is_named(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    assert name in refused(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "transformer",
        "transformer/config.json",
        WEIGHTS,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer",
        "scheduler/scheduler_config.json",
    ],
)
def test_what_is_missing_is_named(name: str, folder: Path) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert name.removesuffix(".safetensors") in refused(folder).replace(": no ", "/")


@pytest.mark.parametrize("name", [WEIGHTS, "text_encoder/model.safetensors"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x04\x95" + b"x" * 100, "a pickle"),
        (b"PK\x03\x04" + b"x" * 100, "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"", "damaged"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "damaged"),
        ((4).to_bytes(8, "little") + b"{{{{", ""),
    ],
    ids=["pickle", "zip", "lfs", "empty", "huge header", "bad header"],
)
def test_weights_of_another_format_are_refused_by_content(
    name: str, content: bytes, told: str, folder: Path
) -> None:
    (folder / name).write_bytes(content)
    message = refused(folder)
    assert name.split("/")[0] in message
    assert told in message


@pytest.mark.parametrize("name", [WEIGHTS, "vae/diffusion_pytorch_model.safetensors"])
def test_a_truncated_file_is_refused_as_such(name: str, folder: Path) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    assert f"{name}: damaged: ends after" in refused(folder)


def test_weights_in_pickles_only_are_refused_with_a_hint(folder: Path) -> None:
    (folder / WEIGHTS).rename((folder / WEIGHTS).with_suffix(".bin"))
    message = refused(folder)
    assert "diffusion_pytorch_model.bin" in message
    assert "convert it to safetensors" in message


@pytest.mark.parametrize(
    "shard",
    ["../vae/a.safetensors", "/etc/a.safetensors", "a.bin", "b/a.safetensors", "\0.safetensors"],
)
def test_a_shard_outside_its_folder_is_refused(shard: str, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": shard}}))
    assert repr(shard)[1:-1] in refused(folder)


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / WEIGHTS)
    assert WEIGHTS in refused(folder)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "part.safetensors"}}))
    assert "transformer/part.safetensors" in refused(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "vae", "tokenizer/tokenizer.json", "model_index.json"])
def test_a_link_out_of_the_checkpoint_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name}: is outside of" in refused(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["proj_out.bias"] = weights["proj_out.bias"][:7].clone()
    save_file(weights, folder / WEIGHTS)
    message = refused(folder)
    assert "proj_out.bias [7]" in message
    assert "expected [64]" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"wdith": 64}', "wdith"),
        ('{"width": "wide"}', "width"),
        ('{"width": 50}', "width=50"),
        ('{"num_inference_steps": 0}', "num_inference_steps=0"),
        ('{"max_sequence_length": null}', "max_sequence_length=null"),
        ("[]", "object"),
    ],
)
def test_wrong_defaults_are_named(content: str, told: str, folder: Path) -> None:
    (folder / "generation_defaults.json").write_text(content)
    message = refused(folder)
    assert "generation_defaults.json" in message
    assert told in message


def test_the_vae_of_xl_is_kept_in_float32_where_float16_would_overflow(
    checkpoints: Checkpoints,
) -> None:
    pipeline = load(checkpoints("sdxl"), torch.float16)
    assert pipeline.components["unet"].dtype == torch.float16
    assert pipeline.components["vae"].dtype == torch.float32


@pytest.mark.parametrize("name", ["flux-dev", "sd15", "sdxl", "wan", "sana", "cogvideox"])
def test_a_familys_table_lists_the_solvers_that_its_checkpoints_allow(
    name: str, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    assert set(pipeline.model_info("test").schedulers) == set(pipeline.family.schedulers)


def test_the_first_solver_is_the_checkpoints_own(checkpoints: Checkpoints) -> None:
    assert load(checkpoints("sd15")).model_info("test").schedulers[0] == "pndm"


def test_nested_configs_choose_no_code_either(folder: Path) -> None:
    edit(folder, "text_encoder/config.json", text_config={"auto_map": {"AutoModel": "x.Y"}})
    assert "auto_map" in refused(folder)


def test_stable_diffusion_defaults_to_the_size_its_unet_was_trained_at(
    checkpoints: Checkpoints,
) -> None:
    defaults = load(checkpoints("sd15")).defaults
    assert (defaults.width, defaults.height) == (64, 64)


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [("flux-dev", 16, 1), ("sd15", 8, 1), ("sdxl", 8, 1), ("wan", 16, 4)],
)
def test_the_multiples_are_those_of_the_components(
    name: str, size: int, frames: int, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    info, family = pipeline.model_info("test"), pipeline.family
    assert (info.size_multiple, info.frame_multiple) == (size, frames)
    assert (family.size_multiple, family.frame_multiple) == (size, frames)


@pytest.mark.parametrize(
    ("name", "corrected"), [("sd15", {"steps_offset": 1, "clip_sample": False}), ("sdxl", {})]
)
def test_settings_that_old_checkpoints_have_wrong_are_put_right(
    name: str, corrected: dict[str, Any], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints(name), tmp_path / name))
    old = {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(old))
    edit(folder, "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    assert load(folder).scheduler_config == {**old, **corrected}


def test_stable_diffusion_may_be_trained_at_a_size_that_is_not_square(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("sd15"), tmp_path / "sd15"))
    edit(folder, "unet/config.json", sample_size=[8, 12])
    defaults = load(folder).defaults
    assert (defaults.width, defaults.height) == (96, 64)


@pytest.mark.parametrize("tokenizer", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_without_a_vocabulary_is_refused(tokenizer: str, folder: Path) -> None:
    (folder / tokenizer / "tokenizer.json").unlink()
    assert f"{tokenizer}: has no vocabulary" in refused(folder)


def test_tokenizers_may_be_of_the_class_that_transformers_5_names(folder: Path) -> None:
    for tokenizer in ("tokenizer", "tokenizer_2"):
        edit(folder, "model_index.json", **{tokenizer: ["transformers", "TokenizersBackend"]})
    load(folder)


@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_components_of_another_model_are_refused(
    component: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("sd15"), tmp_path / "sd15"))
    keys = {"vae": "latent_channels", "text_encoder": "hidden_size"}
    edit(folder, f"{component}/config.json", **{keys[component]: 16})
    message = refused(folder)
    assert "unet." in message
    assert f"{component}.{keys[component]}=16" in message


def test_whole_numbers_are_no_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["proj_out.bias"] = weights["proj_out.bias"].to(torch.int8)
    save_file(weights, folder / WEIGHTS)
    assert "proj_out.bias I8" in refused(folder)


def test_what_only_a_pipeline_makes_of_a_config_is_refused_too(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("wan"), tmp_path / "wan"))
    edit(folder, "vae/config.json", latents_mean="x")
    assert "config.json" in refused(folder)


def test_limits_of_a_checkpoint_are_the_models(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = _stating(checkpoints("flux-schnell"), tmp_path, {"largest_side": 256})
    info = load(folder).model_info("test")
    assert (info.limits.largest_side, info.limits.smallest_side) == (256, None)


@pytest.mark.parametrize("limits", [{"largest_side": 0}, {"max_side": 8}, {"largest_side": "8"}])
def test_limits_that_mean_nothing_are_refused(
    checkpoints: Checkpoints, tmp_path: Path, limits: dict[str, Any]
) -> None:
    folder = _stating(checkpoints("flux-schnell"), tmp_path, limits)
    with pytest.raises(InvalidCheckpoint, match=r"_defaults\.json: limits: .*largest_side"):
        load(folder)


def _stating(checkpoint: Path, folder: Path, limits: dict[str, Any]) -> Path:
    copy = shutil.copytree(checkpoint, folder / "stating")
    (copy / "generation_defaults.json").write_text(json.dumps({"limits": limits}))
    return copy
