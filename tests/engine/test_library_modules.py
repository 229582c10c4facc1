"""Modules of diffusers and transformers are those that the libraries' own loaders make, from the
file's own pages."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from mapped_files import mapped
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from multimodal_gen.configs.families import family_named
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.allowed import ALLOWED
from multimodal_gen.runtime.loader.checkpoint import Checkpoint

Checkpoints = Callable[..., Path]
LIBRARIES: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}
CPU = torch.device("cpu")


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, and tensors that are neither."""
    found = dict(module.named_parameters(remove_duplicate=False))
    found |= dict(module.named_buffers(remove_duplicate=False))
    for name, part in module.named_modules():
        own = {key: value for key, value in vars(part).items() if isinstance(value, Tensor)}
        found |= {f"{name}: {key}": value for key, value in own.items()}
    return found


def check_equal(theirs: nn.Module, ours: nn.Module) -> None:
    expected, found = tensors(theirs), tensors(ours)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


def by_library(folder: Path, component: str, dtype: torch.dtype) -> nn.Module:
    library, class_name = Checkpoint.open(folder).components[component]
    told = {"dtype" if library == "transformers" else "torch_dtype": dtype}
    kind = getattr(LIBRARIES[library], class_name)
    module: nn.Module = kind.from_pretrained(folder / component, use_safetensors=True, **told)
    return module


def modules_of(folder: Path) -> Iterator[str]:
    for name, named in Checkpoint.open(folder).components.items():
        if ALLOWED.get(named) in ("diffusers", "transformers"):
            yield name


EVERY_CLASS = (
    "cogvideox",
    "pixart-alpha",
    "latte",
    "lumina2",
    "flux-dev",
    "flux2-klein",
    "hunyuan-video",
    "ltx-0.9.1",
    "qwenimage",
    "sana",
    "sd15",
    "sdxl",
    "wan",
    "wan-i2v",
)
"""Tiny checkpoints that have between them every library class of all."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", EVERY_CLASS)
def test_modules_equal_those_of_the_librarys_own_loader(
    name: str, dtype: torch.dtype, checkpoints: Checkpoints
) -> None:
    folder = checkpoints(name, dtype=torch.bfloat16)
    for component in modules_of(folder):
        ours = Checkpoint.open(folder).load(component, dtype, CPU)
        check_equal(by_library(folder, component, dtype), ours)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 300,
    "pad_token_id": 0,
}
PARTS = {"text_config": {**SMALL, "model_type": "mistral"}, "vision_config": dict(SMALL)}
"""Of a model for pictures and texts."""


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("BertModel", SMALL),
        ("CLIPVisionModelWithProjection", {**SMALL, "image_size": 8, "patch_size": 4}),
        ("GemmaModel", SMALL),
        ("GlmModel", SMALL),
        ("LlamaForCausalLM", SMALL),
        ("Mistral3Model", PARTS),
        ("Qwen3Model", SMALL),
        ("SmolLM3ForCausalLM", SMALL),
    ],
)
def test_other_encoders_equal_those_of_the_librarys_own_loader(
    class_name: str, config: dict[str, Any], tied: bool, tmp_path: Path
) -> None:
    kind = getattr(transformers, class_name)
    made = kind(kind.config_class(**config, tie_word_embeddings=tied))
    made.to(torch.bfloat16).save_pretrained(tmp_path / "text_encoder")
    components = {"text_encoder": ("transformers", class_name)}
    checkpoint = Checkpoint(tmp_path, "FluxPipeline", components, {})
    theirs = kind.from_pretrained(tmp_path / "text_encoder", dtype=torch.float32)
    check_equal(theirs, checkpoint.load("text_encoder", torch.float32, CPU))


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A checkpoint of the test's own."""
    return Path(shutil.copytree(checkpoints(request.param), tmp_path / "checkpoint"))


def rename(path: Path, change: Callable[[str], str]) -> None:
    save_file({change(key): tensor for key, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("folder", ["flux-schnell"], indirect=True)
@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "vae"])
def test_modules_stay_in_the_pages_of_their_file(folder: Path, component: str) -> None:
    module = Checkpoint.open(folder).load(component, torch.float32, CPU)
    (file,) = (folder / component).glob("*.safetensors")
    pages = mapped(file)
    outside = [
        name
        for name, parameter in module.named_parameters()
        if not any(parameter.data_ptr() in span for span in pages)
    ]
    assert outside == []


OLD_NAMES: list[tuple[str, str, Callable[[str], str]]] = [
    ("sd15", "text_encoder", lambda key: "text_model." + key.removeprefix("text_model.")),
    ("sd15", "text_encoder", lambda key: key.removeprefix("text_model.")),
    (
        "qwenimage",
        "text_encoder",
        lambda key: key.replace("model.language_model.", "model.").replace(
            "model.visual.", "visual."
        ),
    ),
    ("flux2-klein", "text_encoder", lambda key: key.removeprefix("model.")),
    (
        "sd15",
        "vae",
        lambda key: (
            key.replace("to_q", "query")
            .replace("to_k", "key")
            .replace("to_v", "value")
            .replace("to_out.0", "proj_attn")
        ),
    ),
]


@pytest.mark.parametrize(
    ("folder", "component", "change"),
    OLD_NAMES,
    indirect=["folder"],
    ids=["with-prefix", "without-prefix", "before-4.52", "without-head", "attention-blocks"],
)
def test_names_of_old_checkpoints_are_known(
    folder: Path, component: str, change: Callable[[str], str]
) -> None:
    expected = by_library(folder, component, torch.float32)
    (file,) = (folder / component).glob("*.safetensors")
    rename(file, change)
    check_equal(expected, Checkpoint.open(folder).load(component, torch.float32, CPU))


@pytest.mark.parametrize("folder", ["flux-schnell"], indirect=True)
def test_an_embedding_may_be_stored_under_either_of_its_names(folder: Path) -> None:
    expected = by_library(folder, "text_encoder_2", torch.float32)
    file = folder / "text_encoder_2/model.safetensors"
    rename(file, lambda key: key.replace("shared.weight", "encoder.embed_tokens.weight"))
    ours = Checkpoint.open(folder).load("text_encoder_2", torch.float32, CPU)
    check_equal(expected, ours)
    assert ours.shared is ours.encoder.embed_tokens


@pytest.mark.parametrize("folder", ["flux-schnell"], indirect=True)
@pytest.mark.parametrize("change", [0, 1])
def test_an_embedding_that_is_stored_twice_is_one_if_both_are_equal(
    folder: Path, change: int
) -> None:
    file = folder / "text_encoder_2/model.safetensors"
    tensors = load_file(file)
    second = tensors["shared.weight"] + change
    save_file({**tensors, "encoder.embed_tokens.weight": second}, file)
    expected = by_library(folder, "text_encoder_2", torch.float32)
    ours = Checkpoint.open(folder).load("text_encoder_2", torch.float32, CPU)
    check_equal(expected, ours)
    assert (ours.shared is ours.encoder.embed_tokens) == (not change)


@pytest.mark.parametrize("folder", ["flux-schnell"], indirect=True)
def test_what_is_computed_may_be_stored_and_the_rest_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / "text_encoder/model.safetensors"
    more = {
        "text_model.embeddings.position_ids": torch.zeros(1, 77, dtype=torch.int64),
        "text_model.final_thought": torch.ones(2),
    }
    save_file({**load_file(file), **more}, file)
    with caplog.at_level(logging.WARNING):
        ours = Checkpoint.open(folder).load("text_encoder", torch.float32, CPU)
    assert "final_thought" in caplog.text
    assert "position_ids" not in caplog.text
    position_ids = dict(ours.named_buffers())["embeddings.position_ids"]
    assert position_ids.tolist() == [[*range(77)]]


@pytest.mark.parametrize("folder", ["flux-schnell"], indirect=True)
@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "vae"])
def test_missing_tensors_and_wrong_shapes_are_named(folder: Path, component: str) -> None:
    (file,) = (folder / component).glob("*.safetensors")
    whole = load_file(file)
    key = sorted(whole)[0]
    for changed, what in [
        ({name: each for name, each in whole.items() if name != key}, "missing"),
        ({**whole, key: torch.ones(3, 5, 7)}, "wrong shape"),
    ]:
        save_file(changed, file)
        with pytest.raises(InvalidCheckpoint, match=f"{component}: .*{what}: {key}"):
            Checkpoint.open(folder).load(component, torch.float32, CPU)


@pytest.mark.parametrize("folder", ["flux2-klein"], indirect=True)
def test_running_statistics_are_read_with_their_count(folder: Path) -> None:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    counted = torch.tensor(7)
    save_file({**load_file(file), "bn.num_batches_tracked": counted}, file)
    ours = Checkpoint.open(folder).load("vae", torch.bfloat16, CPU)
    assert ours.bn.num_batches_tracked == counted
    assert ours.bn.running_mean.dtype == torch.bfloat16


@pytest.mark.parametrize("folder", ["flux2-klein", "zimage", "qwenimage"], indirect=True)
def test_layers_that_a_family_does_not_use_are_left_in_the_file(folder: Path) -> None:
    family = family_named(json.loads((folder / "model_index.json").read_text())["_class_name"])
    idle = family.components["text_encoder"].idle
    module = Checkpoint.open(folder).load("text_encoder", torch.float32, CPU, idle)
    assert "lm_head" in idle
    kept = [name for name, _ in module.named_parameters()]
    assert kept
    assert not any(name.startswith(idle) for name in kept)


@pytest.mark.parametrize("folder", ["flux2-klein"], indirect=True)
def test_layers_after_the_last_that_is_used_are_left_in_the_file(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    whole, cut = (
        checkpoint.load("text_encoder", torch.float32, CPU, ("lm_head",), depth)
        for depth in (None, 6)
    )
    tokens = torch.arange(5)[None]
    states = [
        module.base_model(tokens, output_hidden_states=True).hidden_states
        for module in (whole, cut)
    ]
    assert len(states[1]) == 7
    for expected, found in zip(states[0][:6], states[1], strict=False):
        assert torch.equal(expected, found)


def test_an_editing_model_keeps_its_sight_and_a_model_for_texts_does_not() -> None:
    texts, edits = (
        family_named(name) for name in ("QwenImagePipeline", "QwenImageEditPlusPipeline")
    )
    assert "model.visual" in texts.components["text_encoder"].idle
    assert "model.visual" not in edits.components["text_encoder"].idle
