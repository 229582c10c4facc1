"""Text encoders as llama.cpp's converter writes them: names, and what it changes in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from single_files import gguf_writer
from torch import Tensor

INTERLEAVED = ("llama", "mistral3")


def permuted(weight: Tensor, heads: int) -> Tensor:
    """As LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def converted(module: Any, architecture: str) -> dict[str, Tensor]:
    """Tensors of a model of transformers, with llama.cpp's names and numbers."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    config = module.config.get_text_config()
    layers = getattr(config, "num_hidden_layers", None) or config.num_layers
    names = gguf.get_tensor_name_map(arch, layers)
    found = {}
    for name, tensor in module.state_dict().items():
        if (
            any(part in name for part in ("vis", "multi_modal"))
            or name == "encoder.embed_tokens.weight"
        ):
            continue
        name = name.replace("model.language_model.", "model.")
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        if architecture in INTERLEAVED and "q_proj" in name:
            tensor = permuted(tensor, config.num_attention_heads)
        if architecture in INTERLEAVED and "k_proj" in name:
            tensor = permuted(tensor, config.num_key_value_heads)
        theirs = names.get_name(name, (".weight", ".bias")) or names.get_name(
            f"model.{name}", (".weight", ".bias")
        )
        assert theirs is not None, name
        found[theirs] = tensor
    return found


def write_encoder(path: Path, module: Any, architecture: str, kind: str = "Q8_0") -> Path:
    """Write matrices in blocks of `kind`, all else in float32; `module` gets their numbers."""
    requantise(module, kind)
    with gguf_writer(path, architecture) as writer:
        for name, tensor in converted(module, architecture).items():
            own = gguf.GGMLQuantizationType[kind if _has_blocks(tensor) else "F32"]
            blocks = gguf.quants.quantize(tensor.contiguous().numpy(), own)
            writer.add_tensor(name, blocks, raw_dtype=own)
        if architecture in INTERLEAVED:
            writer.add_tensor("rope_freqs.weight", torch.ones(4).numpy())
    return path


def requantise(module: Any, kind: str) -> None:
    """Round a module's matrices to what blocks of `kind` can say."""
    quantisation = gguf.GGMLQuantizationType[kind]
    for parameter in module.parameters():
        if _has_blocks(parameter):
            blocks = gguf.quants.quantize(parameter.detach().numpy(), quantisation)
            rounded = gguf.quants.dequantize(blocks, quantisation)
            parameter.data.copy_(torch.from_numpy(rounded))
        else:  # to what 1 can be added to and taken from
            parameter.data.add_(1).sub_(1)


def _has_blocks(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.shape[1] % 32 == 0


def write_vision(path: Path, module: Any) -> Path:
    """Write the vision tower of a Qwen2.5-VL in float32."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 4)
    with gguf_writer(path, "clip") as writer:
        for name, tensor in module.state_dict().items():
            if "visual." not in name:
                continue
            name = name[name.index("visual.") :]
            parts = {name: tensor}
            if ".qkv." in name:
                parts = {
                    name.replace("qkv", part): rows
                    for part, rows in zip("qkv", tensor.chunk(3), strict=True)
                }
            for own, part in parts.items():
                theirs = names.get_name(own, (".weight", ".bias"))
                assert theirs is not None, own
                if part.dim() == 5:
                    writer.add_tensor(f"{theirs}.1", part[:, :, 1].contiguous().numpy())
                    part = part[:, :, 0]
                writer.add_tensor(theirs, part.contiguous().numpy())
    return path
