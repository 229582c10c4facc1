"""Text encoders of llama.cpp's GGUF files give the states that transformers' own weights give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from denoisers import differences
from llama_cpp_files import write_encoder, write_vision
from tiny_checkpoints.encoders import t5, umt5
from tiny_checkpoints.llms import gemma2, llama
from tiny_checkpoints.qwen3 import qwen3
from torch import Tensor

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.configs.families import family_named
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.original.encoders.llama_cpp import (
    is_llama_cpp,
    transformers_tensors,
)
from multimodal_gen.runtime.loader.original.encoders.llama_cpp_vision import renamed
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors

CPU = torch.device("cpu")
TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen_vl() -> Any:
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32},
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def mistral3() -> Any:
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**TEXT, head_dim=16),
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        ),
    )
    return transformers.Mistral3ForConditionalGeneration(config)


def gemma3() -> Any:
    return transformers.Gemma3TextModel(transformers.Gemma3TextConfig(**TEXT, head_dim=16))


ENCODERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "t5": ("t5", t5),
    "t5 alone": ("t5encoder", t5),
    "umt5": ("t5encoder", umt5),
    "llama": ("llama", llama),
    "qwen3": ("qwen3", lambda: qwen3(2)),
    "qwen2.5-vl": ("qwen2vl", qwen_vl),
    "mistral 3": ("llama", mistral3),
    "ministral 3": ("mistral3", mistral3),
    "gemma2": ("gemma2", gemma2),
    "gemma3": ("gemma3", gemma3),
}
IDLE = ("lm_head", "model.visual", "model.vision_tower", "model.multi_modal_projector")


def states(module: Any) -> Tensor:
    """Hidden states of the text model within `module`."""
    module = getattr(module.base_model, "language_model", module.base_model)
    index = torch.arange(3, 20)[None]
    with torch.inference_mode():
        found = module(input_ids=index, output_hidden_states=True)
    return torch.stack(found.hidden_states)


@pytest.mark.parametrize("name", ENCODERS)
def test_states_are_those_of_the_weights_that_were_converted(name: str, tmp_path: Path) -> None:
    architecture, make = ENCODERS[name]
    torch.manual_seed(0)
    module = make().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.2)
    file = write_encoder(tmp_path / "encoder.gguf", module, architecture)
    stored = gguf_tensors(read_header(file))
    assert is_llama_cpp(stored)
    class_name, config = type(module).__name__, module.config.to_dict()
    tensors = transformers_tensors(stored, class_name, config, "encoder.gguf")
    own = LibraryModule("transformers", class_name, config, "text_encoder", IDLE)
    loaded: Any = own.load(tensors, torch.float32, CPU)
    forms = [part.forms for part in loaded.modules() if isinstance(part, KeptWeight)]
    assert set(forms) == {("Q8_0",)}
    torch.testing.assert_close(states(loaded), states(module), rtol=1e-5, atol=1e-5)


def test_names_that_no_encoder_has_are_refused(tmp_path: Path) -> None:
    module = llama()
    file = write_encoder(tmp_path / "x.gguf", module, "llama")
    stored = gguf_tensors(read_header(file))
    stored["blk.0.ffn_gate_exps.weight"] = stored["output_norm.weight"]
    with pytest.raises(InvalidCheckpoint, match=r"x\.gguf: unexpected: blk\.0\.ffn_gate_exps"):
        transformers_tensors(stored, "LlamaModel", module.config.to_dict(), "x.gguf")


def test_rows_that_do_not_split_into_heads_are_refused(tmp_path: Path) -> None:
    module = llama()
    file = write_encoder(tmp_path / "x.gguf", module, "llama")
    config = {**module.config.to_dict(), "num_attention_heads": 5}
    with pytest.raises(InvalidCheckpoint, match=r"blk\.0\.attn_q\.weight \[32, 32\] .* 5 heads"):
        transformers_tensors(gguf_tensors(read_header(file)), "LlamaModel", config, "x.gguf")


COMPONENTS = {
    "flux-schnell": ("text_encoder_2", "t5encoder"),
    "wan": ("text_encoder", "t5encoder"),
    "hunyuan-video": ("text_encoder", "llama"),
    "zimage": ("text_encoder", "qwen3"),
    "flux2-klein": ("text_encoder", "qwen3"),
    "qwenimage": ("text_encoder", "qwen2vl"),
    "sana": ("text_encoder", "gemma2"),
}
"""Text encoders of tiny checkpoints, with their architectures."""


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_checkpoint_takes_its_text_encoder_from_a_gguf_file(
    name: str, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder, (component, architecture) = checkpoints(name), COMPONENTS[name]
    whole, dtype = Checkpoint.open(folder), torch.float32
    idle = family_named(whole.pipeline_class).components[component].idle
    module = copy.deepcopy(whole.load(component, dtype, CPU, idle))
    file = write_encoder(tmp_path / "encoder.gguf", module, architecture)
    in_file = Checkpoint.open(folder, None, {component: file})
    assert differences(module, in_file.load(component, dtype, CPU, idle)) == []


@pytest.mark.parametrize("beside", ["qwen-vl-mmproj-F16.gguf", "mmproj.gguf"])
def test_the_vision_tower_is_in_a_file_beside_the_encoders(
    beside: str, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder, dtype, idle = checkpoints("qwenimage-edit"), torch.float32, ("lm_head",)
    module = copy.deepcopy(Checkpoint.open(folder).load("text_encoder", dtype, CPU, idle))
    file = write_encoder(tmp_path / "Qwen-VL-Q8_0.gguf", module, "qwen2vl")
    in_file = Checkpoint.open(folder, None, {"text_encoder": file})
    with pytest.raises(InvalidCheckpoint, match=r"missing: model\.visual\."):
        in_file.load("text_encoder", dtype, CPU, idle)
    write_vision(tmp_path / beside, module)
    assert differences(module, in_file.load("text_encoder", dtype, CPU, idle)) == []
    if beside == "mmproj.gguf":
        return
    write_vision(tmp_path / "other-mmproj.gguf", module)
    assert differences(module, in_file.load("text_encoder", dtype, CPU, idle)) == []


def test_parts_of_a_vision_tower_that_do_not_fit_are_named(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    module = Checkpoint.open(checkpoints("qwenimage-edit")).load(
        "text_encoder", torch.float32, CPU, ("lm_head",)
    )
    file = write_vision(tmp_path / "mmproj.gguf", module)
    whole = gguf_tensors(read_header(file))
    for missing, said in (
        ("v.blk.0.attn_k.weight", r"m: v\.blk\.0\.attn_.\.weight: its queries, keys and values"),
        ("v.patch_embd.weight", r"m: v\.patch_embd\.weight\.1: does not fit"),
    ):
        left = {name: each for name, each in whole.items() if name != missing}
        with pytest.raises(InvalidCheckpoint, match=said):
            renamed(left, "m")
    with pytest.raises(InvalidCheckpoint, match=r"m: unexpected: v\.blk\.0\.lora"):
        renamed({**whole, "v.blk.0.lora": whole["v.post_ln.weight"]}, "m")
