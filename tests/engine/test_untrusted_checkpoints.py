"""A checkpoint chooses no code, and no file outside its folder is opened for it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from engineless import load
from safetensors.torch import save_file

from multimodal_gen.checkpoints.files import inside, read_json
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.library_view import model_settings, tokenizer_settings
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig

Checkpoints = Callable[..., Path]
OUTSIDE = "outside-the-checkpoint"
TOKENIZER, ENCODER, VAE = "tokenizer", "text_encoder", "vae"
OUT = f"../../{OUTSIDE}/tokenizer.4.0.0.json"
"""As seen from a component's folder; the name is one of a file for newer versions."""


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A FLUX checkpoint, beside a folder with files that break whatever reads them."""
    own = Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))
    (tmp_path / OUTSIDE).mkdir()
    for name in ("tokenizer.json", "tokenizer.4.0.0.json", "model.safetensors"):
        (tmp_path / OUTSIDE / name).write_text("neither JSON nor weights")
    return own


@pytest.fixture(scope="module")
def audited() -> Iterator[list[str]]:
    """Paths that Python opens outside the checkpoint, and hosts that it asks for."""
    seen: list[str] = []
    watching = True  # an audit hook can't be removed

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and OUTSIDE in str(args[0]):
            seen.append(str(args[0]))
        if watching and event == "socket.getaddrinfo":
            seen.append(str(args[0]))

    sys.addaudithook(watch)
    yield seen
    watching = False


@pytest.fixture
def opened(audited: list[str], folder: Path) -> list[str]:
    """What is opened while a checkpoint is loaded that it should not be."""
    audited.clear()
    return audited


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


LEADING_OUT: list[dict[str, Any]] = [
    {"fast_tokenizer_files": [OUT]},
    {"fast_tokenizer_files": ["tokenizer.json", "../" + OUT]},
    {"init_inputs": [OUT, OUT]},
    {"vocab": OUT, "merges": OUT},
    {"vocab_file": OUT, "merges_file": OUT},
    {"tokenizer_file": OUT, "gguf_file": OUT},
    {"spm_file": OUT, "sp_model_kwargs": {"model_file": OUT}},
    {"name_or_path": f"../{OUTSIDE}", "special_tokens_map_file": OUT},
    {"tokenizer_object": OUT, "__slow_tokenizer": OUT},
    {"from_slow": True, "vocab_files_names": {"vocab_file": OUT}},
]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("changes", LEADING_OUT, ids=str)
def test_a_tokenizers_config_opens_nothing_outside(
    changes: dict[str, Any], name: str, folder: Path, opened: list[str]
) -> None:
    edit(folder, f"{TOKENIZER}/{name}", **changes)
    load(folder)
    assert opened == []


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer/tokenizer.json",
        "tokenizer/merges.txt",
        "tokenizer/added_tokens.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/chat_template.jinja",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
        "generation_defaults.json",
    ],
)
def test_a_link_to_a_file_outside_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / OUTSIDE / "tokenizer.json")
    with pytest.raises(InvalidCheckpoint, match=f"{name}: is outside of"):
        load(folder)


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "tokenizer/chat_template.jinja"])
def test_a_vocabulary_that_would_fill_the_memory_is_refused(name: str, folder: Path) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(20 << 30)  # takes no space on disk
    with pytest.raises(InvalidCheckpoint, match=f"{name}: larger than"):
        load(folder)


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\udc00\\ud800"])
def test_text_that_nothing_can_encode_is_refused(half: str, tmp_path: Path) -> None:
    for content in (f'{{"_class_name": "{half}"}}', f'{{"a": [{{"{half}": 1}}]}}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InvalidCheckpoint, match=r"config\.json: not valid JSON: .*surrogates"):
            read_json(tmp_path, "config.json")
    (tmp_path / "config.json").write_text('{"bos_token": "\\ud83d\\ude00"}')
    assert read_json(tmp_path, "config.json") == {"bos_token": "\U0001f600"}


def test_files_that_nothing_needs_are_not_opened(folder: Path, opened: list[str]) -> None:
    away = folder.parent / OUTSIDE / "tokenizer.json"
    for name in ("generation_config.json", "additional_chat_templates", "processor_config.json"):
        (folder / ENCODER / name).symlink_to(away)
        (folder / TOKENIZER / name).symlink_to(away)
    load(folder)
    assert opened == []


@pytest.mark.parametrize("weights", [f"../../{OUTSIDE}/model.safetensors", "other.safetensors"])
def test_an_encoders_config_names_no_weights(weights: str, folder: Path, opened: list[str]) -> None:
    (folder / ENCODER / "other.safetensors").write_bytes(b"not even weights")
    edit(folder, f"{ENCODER}/config.json", transformers_weights=weights)
    load(folder)
    assert opened == []


@pytest.mark.parametrize("key", ["attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("component", [ENCODER, VAE, "text_encoder_2"])
@pytest.mark.parametrize("kernel", ["org/kernel", "paged|org/kernel@main:f", "flash_attention_2"])
def test_no_kernel_is_fetched_for_a_config(
    key: str, component: str, kernel: str, folder: Path, opened: list[str]
) -> None:
    names = (key, f"_{key}", f"_{key}_internal")
    edit(folder, f"{component}/config.json", **dict.fromkeys(names, kernel))
    load(folder)
    assert opened == []


def test_only_settings_that_a_class_declares_reach_it() -> None:
    kind = transformers.CLIPTextModel
    wanted = {"hidden_size": 8, "hidden_act": "gelu"}
    others = {
        "attn_implementation": "org/kernel",
        "use_kernels": True,
        "kernel_config": {"a": "org/kernel"},
        "quantization_config": {"quant_method": "bitsandbytes_4bit"},
        "transformers_weights": "../x.safetensors",
        "custom_pipelines": {"x": {"impl": "x.Y"}},
        "name_or_path": "org/name",
        "_name_or_path": "org/name",
        "dtype": "_C",
        "torch_dtype": "_C",
        "get_text_config": "x",
    }
    assert model_settings(kind, wanted | others, "config.json") == wanted


def test_a_nested_config_is_of_the_model_that_the_class_has() -> None:
    kind = transformers.Mistral3Model
    plain = {"text_config": {"model_type": "mistral", "hidden_size": 8, "use_kernels": True}}
    assert model_settings(kind, plain, "") == {
        "text_config": {"model_type": "mistral", "hidden_size": 8}
    }
    with pytest.raises(InvalidCheckpoint, match="vision_config: model_type='timm_wrapper' must"):
        model_settings(kind, {"vision_config": {"model_type": "timm_wrapper"}}, "")


def test_published_configs_keep_what_their_models_need() -> None:
    """Keys of Qwen2.5-VL's config as Qwen-Image publishes it: flat, and nested."""
    flat = {"rope_theta": 1e6, "rope_scaling": {"mrope_section": [1]}, "hidden_size": 8}
    given = {**flat, "vision_config": {"depth": 2}, "text_config": flat, "image_token_id": 3}
    assert model_settings(transformers.Qwen2_5_VLForConditionalGeneration, given, "") == given


def test_special_tokens_and_plain_settings_of_a_tokenizer_are_kept() -> None:
    kept = {"pad_token": "x", "image_token": "y", "extra_ids": 3, "model_max_length": 77}
    assert tokenizer_settings(kept | {"vocab": "/etc/passwd", "init_inputs": [1]}) == kept


def test_the_hubs_blobs_must_be_a_folder_of_the_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "x.json").symlink_to(tmp_path / "secret.json")
    for target in (Path("/"), tmp_path, Path("..")):
        blobs = snapshot.parent.parent / "blobs"
        blobs.symlink_to(target)
        with pytest.raises(InvalidCheckpoint, match=r"x\.json: is outside of"):
            inside(snapshot, "x.json")
        blobs.unlink()


def test_files_that_repositories_of_the_hubs_cache_share_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    blobs, shared = tmp_path / "models--a--b" / "blobs", tmp_path / "blobs" / "ab"
    for folder in (snapshot, blobs, shared):
        folder.mkdir(parents=True)
    (shared / "ab12").write_text("{}")
    (blobs / "1").symlink_to("../../blobs/ab/ab12")
    (snapshot / "x.json").symlink_to("../../blobs/1")
    with pytest.raises(InvalidCheckpoint, match=r"x\.json: is outside of"):
        inside(snapshot, "x.json")
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert inside(snapshot, "x.json").read_text() == "{}"
    (shared / "ab12").unlink()
    (shared / "ab12").symlink_to("/etc/hostname")
    with pytest.raises(InvalidCheckpoint, match=r"x\.json: is outside of"):
        inside(snapshot, "x.json")


def test_a_link_inside_the_hubs_blobs_leads_nowhere_else(tmp_path: Path) -> None:
    snapshot, blobs = (tmp_path / "models--a--b" / name for name in ("snapshots/123", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").symlink_to("/etc/hostname")
    (snapshot / "x.json").symlink_to(blobs / "1")
    with pytest.raises(InvalidCheckpoint, match=r"x\.json: is outside of"):
        inside(snapshot, "x.json")


@pytest.mark.parametrize("component", [ENCODER, VAE])
def test_an_index_of_shards_needs_no_metadata(component: str, folder: Path) -> None:
    (weights,) = (folder / component).glob("*.safetensors")
    whole = load(folder).components[component].state_dict()
    names = sorted(whole)
    shards = {f"{weights.stem}-00001-of-00002.safetensors": names[::2]}
    shards[f"{weights.stem}-00002-of-00002.safetensors"] = names[1::2]
    for file, keys in shards.items():
        save_file({key: whole[key].contiguous() for key in keys}, folder / component / file)
    weights.unlink()
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (folder / component / f"{weights.name}.index.json").write_text(json.dumps(index))
    found = load(folder).components[component].state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in whole.items())


@pytest.mark.parametrize("value", [False, None])
def test_an_unknown_field_of_a_transformer_that_is_off_is_no_obstacle(value: object) -> None:
    assert FluxConfig.from_dict({"use_new_thing": value}) == FluxConfig()
    with pytest.raises(InvalidCheckpoint, match="use_new_thing"):
        FluxConfig.from_dict({"use_new_thing": True})
