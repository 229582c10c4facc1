"""Single weight files made from folders in diffusers layout: what the loader undoes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
COMFY = "model.diffusion_model."


def weights(folder: Path, component: str = "transformer") -> Tensors:
    """A component's tensors, under diffusers' names."""
    (file,) = (folder / component).glob("*.safetensors")
    return load_file(file)


def renamed(tensors: Mapping[str, Tensor], table: Mapping[str, str]) -> Tensors:
    """With each part of a name that stands in `table` exchanged, in its order."""
    found = {}
    for name, tensor in tensors.items():
        for theirs, ours in table.items():
            name = name.replace(theirs, ours)
        found[name] = tensor
    return found


def fused(tensors: Tensors, whole: str, parts: tuple[str, ...]) -> Tensors:
    """With tensors that differ in `parts` of their names joined into one with `whole` there."""
    kept = dict(tensors)
    for name in tensors:
        if parts[0] in name:
            pieces = [kept.pop(name.replace(parts[0], part)) for part in parts]
            kept[name.replace(parts[0], whole)] = torch.cat(pieces)
    return kept


def swapped(tensors: Tensors, *modules: str) -> Tensors:
    """With the halves of some modules' parameters exchanged: shift before scale."""
    return {
        name: torch.cat(tensor.chunk(2)[::-1]) if name.rpartition(".")[0] in modules else tensor
        for name, tensor in tensors.items()
    }


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def flux(folder: Path) -> Tensors:
    return flux_of(swapped(weights(folder), "norm_out.linear"))


def flux_of(tensors: Tensors) -> Tensors:
    parts = tuple(f"single_transformer_blocks.@.attn.to_{x}." for x in "qkv")
    parts = (*parts, "single_transformer_blocks.@.proj_mlp.")
    tensors = _fused_blocks(tensors, "single_blocks.@.linear1.", parts)
    return {_last(name): t for name, t in renamed(_fused_streams(tensors), _FLUX).items()}


def _fused_streams(tensors: Tensors) -> Tensors:
    """FLUX's double blocks with q, k and v in one."""
    for stream, names in (("img", "to_{}"), ("txt", "add_{}_proj")):
        parts = tuple(f"transformer_blocks.@.attn.{names.format(x)}." for x in "qkv")
        tensors = _fused_blocks(tensors, f"double_blocks.@.{stream}_attn.qkv.", parts)
    return tensors


def chroma(folder: Path) -> Tensors:
    layers = {".linear_1": ".in_layer", ".linear_2": ".out_layer"}
    apart, mine = {}, {}
    for name, tensor in weights(folder).items():
        (mine if name.startswith("distilled_guidance_layer") else apart)[name] = tensor
    mine = {
        name.replace(".weight", ".scale") if ".norms." in name else name: tensor
        for name, tensor in renamed(mine, layers).items()
    }
    return flux_of(apart) | mine


_FLUX = {
    "single_transformer_blocks": "single_blocks",
    "transformer_blocks": "double_blocks",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm1_context.linear": "txt_mod.lin",
    "norm1.linear": "img_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    ".norm.linear": ".modulation.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}


def _last(name: str) -> str:
    """What is left of FLUX's renaming: the last projections and the norms of q and k."""
    name = re.sub(r"^proj_out", "final_layer.linear", name).replace(".proj_out", ".linear2")
    single = name.startswith("single")
    norm = "norm" if single else "img_attn.norm"
    for letter, what in (("q", "query"), ("k", "key")):
        name = name.replace(f"attn.norm_{letter}", f"{norm}.{what}_norm")
    return name.replace("_norm.weight", "_norm.scale")


def _fused_blocks(tensors: Tensors, whole: str, parts: tuple[str, ...]) -> Tensors:
    """`fused` for each block, whose number is `@`."""
    numbers = {n for name in tensors for n in re.findall(r"blocks\.(\d+)\.", name)}
    for number in numbers:
        tensors = fused(
            tensors, whole.replace("@", number), tuple(p.replace("@", number) for p in parts)
        )
    return tensors


def sd3(folder: Path) -> Tensors:
    tensors = weights(folder)
    last = max(int(n) for name in tensors for n in re.findall(r"^transformer_blocks\.(\d+)", name))
    tensors = swapped(tensors, "norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")
    for whole, names in (
        ("x_block.attn.qkv", "attn.to_{}"),
        ("context_block.attn.qkv", "attn.add_{}_proj"),
        ("x_block.attn2.qkv", "attn2.to_{}"),
    ):
        tensors = fused(tensors, f".{whole}.", tuple(f".{names.format(x)}." for x in "qkv"))
    tensors = renamed(tensors, _SD3)
    return {re.sub(r"^proj_out", "final_layer.linear", name): t for name, t in tensors.items()}


_SD3 = {
    "transformer_blocks": "joint_blocks",
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    ".norm1_context.linear": ".context_block.adaLN_modulation.1",
    ".norm1.linear": ".x_block.adaLN_modulation.1",
    ".attn.to_out.0": ".x_block.attn.proj",
    ".attn2.to_out.0": ".x_block.attn2.proj",
    ".attn.to_add_out": ".context_block.attn.proj",
    ".attn.norm_added_": ".context_block.attn.ln_",
    ".attn.norm_": ".x_block.attn.ln_",
    ".attn2.norm_": ".x_block.attn2.ln_",
    ".ff_context.net.0.proj": ".context_block.mlp.fc1",
    ".ff_context.net.2": ".context_block.mlp.fc2",
    ".ff.net.0.proj": ".x_block.mlp.fc1",
    ".ff.net.2": ".x_block.mlp.fc2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}


def z_image(folder: Path) -> Tensors:
    tensors = fused(weights(folder), ".attention.qkv.", tuple(f".attention.to_{x}." for x in "qkv"))
    table = {
        "all_x_embedder.2-1": "x_embedder",
        "all_final_layer.2-1": "final_layer",
        ".attention.norm_q": ".attention.q_norm",
        ".attention.norm_k": ".attention.k_norm",
        ".attention.to_out.0": ".attention.out",
    }
    return renamed(tensors, table) | {"norm_final.weight": torch.ones(8)}


def qwen_image_21(folder: Path) -> Tensors:
    parts = ("transformer_blocks.@.img_mlp.gate_layer.", "transformer_blocks.@.img_mlp.proj.")
    return _fused_blocks(weights(folder), "transformer_blocks.@.img_mlp.gate_up.", parts)


def minimax_h3(folder: Path) -> Tensors:
    tensors = weights(folder)
    gated = [name.removesuffix(".weight") for name in tensors if ".ff.net.0.proj." in name]
    tensors = swapped(tensors, *gated)
    tensors = fused(tensors, ".attn.qkv_proj.", tuple(f".attn.to_{x}." for x in "qkv"))
    table = {
        "refiner_blocks": "blocks",
        "transformer_blocks": "blocks",
        "attn.norm_q": "attn.q_norm",
        "attn.norm_k": "attn.k_norm",
        "attn.to_out.0": "attn.out_proj",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
        "norm_out.norm": "final_layer.norm",
        "norm_out.linear": "final_layer.adaln_proj.linear",
        "audio_proj_in": "audio_patch_proj",
        "audio_proj_out": "final_layer.audio_out",
        "context_embedder": "condition_proj",
        "time_embedder.linear_1": "time_embedder.proj_in",
        "time_embedder.linear_2": "time_embedder.proj_out",
    }
    outside = {"proj_in": "video_patch_proj", "proj_out": "final_layer.video_out"}
    return {
        outside.get(module, module) + f".{kind}": tensor
        for name, tensor in renamed(tensors, table).items()
        for module, _, kind in [name.rpartition(".")]
    }


def krea2(folder: Path) -> Tensors:
    table = {
        "transformer_blocks": "blocks",
        "scale_shift_table": "mod.lin",
        "final_layer.mod.lin": "last.modulation.lin",
        "final_layer.norm.weight": "last.norm.scale",
        "final_layer.linear": "last.linear",
        "norm1.weight": "prenorm.scale",
        "norm2.weight": "postnorm.scale",
        "txt_in.norm.weight": "txtmlp.0.scale",
        "txt_in.linear_1": "txtmlp.1",
        "txt_in.linear_2": "txtmlp.3",
        "img_in": "first",
        "time_embed.linear_1": "tmlp.0",
        "time_embed.linear_2": "tmlp.2",
        "time_mod_proj": "tproj.1",
        "text_fusion": "txtfusion",
        "attn.norm_q.weight": "attn.qknorm.qnorm.scale",
        "attn.norm_k.weight": "attn.qknorm.knorm.scale",
        "attn.to_out.0": "attn.wo",
        "attn.to_gate": "attn.gate",
        "attn.to_": "attn.w",
        ".ff.": ".mlp.",
    }
    tensors = renamed(weights(folder), table)
    return {name: t.flatten() if ".mod.lin" in name else t for name, t in tensors.items()}


def flux2(folder: Path) -> Tensors:
    tensors = _fused_streams(swapped(weights(folder), "norm_out.linear"))
    shared = ("x_", "context_", "attn.", "norm_out")
    table = {
        "single_transformer_blocks": "single_blocks",
        "transformer_blocks": "double_blocks",
        "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "modulation_img.linear": "modulation_img.lin",
        "modulation_txt.linear": "modulation_txt.lin",
        "single_stream_modulation.linear": "single_stream_modulation.lin",
        "attn.to_qkv_mlp_proj": "linear1",
        "ff_context.linear_in": "txt_mlp.0",
        "ff_context.linear_out": "txt_mlp.2",
        "ff.linear_in": "img_mlp.0",
        "ff.linear_out": "img_mlp.2",
        **{key: name for key, name in _FLUX.items() if key.startswith(shared)},
    }
    tensors = {
        name.replace("attn.to_out", "linear2") if name.startswith("single") else name: tensor
        for name, tensor in tensors.items()
    }
    return {_last(name): tensor for name, tensor in renamed(tensors, table).items()}


def wan(folder: Path) -> Tensors:
    return wan_of(weights(folder))


def wan_vace(folder: Path) -> Tensors:
    table = {".proj_in": ".before_proj", ".proj_out": ".after_proj"}
    return wan_of(renamed(weights(folder), table))


def wan_of(tensors: Tensors) -> Tensors:
    table = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
        "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
        "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
        "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
        "attn1": "self_attn",
        "attn2": "cross_attn",
        ".to_out.0.": ".o.",
        ".to_q.": ".q.",
        ".to_k.": ".k.",
        ".to_v.": ".v.",
        ".add_k_proj.": ".k_img.",
        ".add_v_proj.": ".v_img.",
        ".norm_added_k.": ".norm_k_img.",
        "proj_out": "head.head",
        ".scale_shift_table": ".modulation",
        "scale_shift_table": "head.modulation",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
        "norm2": "norm3",
    }
    return renamed(tensors, table)


AV = ("audio", "video")


def ltx(folder: Path) -> Tensors:
    table = {"proj_in": "patchify_proj", "time_embed": "adaln_single"}
    return renamed(weights(folder), table | {"norm_q": "q_norm", "norm_k": "k_norm"})


def ltx2(folder: Path) -> Tensors:
    """With a tensor of the connectors, which original files have among the denoiser's."""
    exchange = {
        f"{x}_a2v_cross_attn_scale_shift_table": f"scale_shift_table_a2v_ca_{x}" for x in AV
    }
    scales = {f"av_cross_attn_{x}_scale_shift": f"av_ca_{x}_scale_shift_adaln_single" for x in AV}
    table = {
        "proj_in": "patchify_proj",
        "time_embed": "adaln_single",
        "prompt_adaln": "prompt_adaln_single",
        **exchange,
        **scales,
        "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
        "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single",
        "norm_q": "q_norm",
        "norm_k": "k_norm",
    }
    connector = "video_embeddings_connector.learnable_registers"
    return renamed(weights(folder), table) | {connector: torch.ones(2, 2)}


def hunyuan_video(folder: Path) -> Tensors:
    tensors = swapped(weights(folder), "norm_out.linear")
    parts = tuple(f"single_transformer_blocks.@.attn.to_{x}." for x in "qkv")
    parts = (*parts, "single_transformer_blocks.@.proj_mlp.")
    tensors = _fused_blocks(tensors, "single_blocks.@.linear1.", parts)
    refiner = "context_embedder.token_refiner.refiner_blocks.@"
    parts = tuple(f"{refiner}.attn.to_{x}." for x in "qkv")
    tensors = _fused_blocks(tensors, f"{refiner}.self_attn_qkv.", parts)
    for stream, names in (("img", "to_{}"), ("txt", "add_{}_proj")):
        parts = tuple(f"transformer_blocks.@.attn.{names.format(x)}." for x in "qkv")
        tensors = _fused_blocks(tensors, f"double_blocks.@.{stream}_attn_qkv.", parts)
    text = {name: t for name, t in tensors.items() if name.startswith("context_embedder")}
    rest = {name: t for name, t in tensors.items() if name not in text}
    found = renamed(text, _HUNYUAN_TEXT) | renamed(rest, _HUNYUAN)
    found = {re.sub(r"^proj_out", "final_layer.linear", name): t for name, t in found.items()}
    found = {
        re.sub(r"^(single.*)attn.norm_(.)", r"\1\2_norm", name): t for name, t in found.items()
    }
    return {re.sub(r"attn.norm_(.)", r"img_attn_\1_norm", name): t for name, t in found.items()}


_HUNYUAN_TEXT = {
    "context_embedder.proj_in": "txt_in.input_embedder",
    "context_embedder.time_text_embed.timestep_embedder.linear_1": "txt_in.t_embedder.mlp.0",
    "context_embedder.time_text_embed.timestep_embedder.linear_2": "txt_in.t_embedder.mlp.2",
    "context_embedder.time_text_embed.text_embedder": "txt_in.c_embedder",
    "context_embedder.token_refiner.refiner_blocks": "txt_in.individual_token_refiner.blocks",
    "norm_out.linear": "adaLN_modulation.1",
    "attn.to_out.0": "self_attn_proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_HUNYUAN = {
    "single_transformer_blocks": "single_blocks",
    "transformer_blocks": "double_blocks",
    "x_embedder": "img_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "time_in.mlp.2",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.mlp.0",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.mlp.2",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "attn.to_out.0": "img_attn_proj",
    "attn.to_add_out": "txt_attn_proj",
    "attn.norm_added_q": "txt_attn_q_norm",
    "attn.norm_added_k": "txt_attn_k_norm",
    "norm1_context.linear": "txt_mod.linear",
    "norm1.linear": "img_mod.linear",
    "ff_context.net.0.proj": "txt_mlp.fc1",
    "ff_context.net.2": "txt_mlp.fc2",
    "ff.net.0.proj": "img_mlp.fc1",
    "ff.net.2": "img_mlp.fc2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    ".norm.linear": ".modulation.linear",
    ".proj_out": ".linear2",
}


_SPLIT = (
    ("attn.qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v")),
    ("cross_attn.kv_linear", ("attn2.to_k", "attn2.to_v")),
)
_CROSS = {
    "transformer_blocks.": "blocks.",
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.to_out.0": "cross_attn.proj",
    "caption_projection.linear_": "y_embedder.y_proj.fc",
    "proj_out": "final_layer.linear",
}


def _cross_attending(tensors: Tensors, table: Mapping[str, str]) -> Tensors:
    for whole, parts in _SPLIT:
        tensors = fused(tensors, f".{whole}.", tuple(f".{part}." for part in parts))
    found = renamed(tensors, {**_CROSS, **table})
    if "scale_shift_table" in found:  # a whole model
        found["final_layer.scale_shift_table"] = found.pop("scale_shift_table")
        found |= {"y_embedder.y_embedding": torch.ones(3, 8), "pos_embed": torch.ones(1, 4, 8)}
    return found


def pixart(folder: Path) -> Tensors:
    table = {
        "pos_embed.proj": "x_embedder.proj",
        "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "adaln_single.linear": "t_block.1",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
    }
    return _cross_attending(weights(folder), table)


def sana(folder: Path) -> Tensors:
    table = {
        "patch_embed.proj": "x_embedder.proj",
        "time_embed.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_embed.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_embed.linear": "t_block.1",
        "caption_norm": "attention_y_norm",
        "ff.conv_inverted": "mlp.inverted_conv.conv",
        "ff.conv_depth": "mlp.depth_conv.conv",
        "ff.conv_point": "mlp.point_conv.conv",
    }
    return _cross_attending(weights(folder), table)


ORIGINAL: Mapping[str, Callable[[Path], Tensors]] = {
    "flux-dev": flux,
    "flux-schnell": flux,
    "chroma": chroma,
    "sd3": sd3,
    "sd35": sd3,
    "zimage": z_image,
    "krea2": krea2,
    "minimax-h3": minimax_h3,
    "qwenimage21": qwen_image_21,
    "flux2-klein": flux2,
    "flux2-dev": flux2,
    "wan": wan,
    "wan-i2v": wan,
    "wan22-ti2v": wan,
    "wan-vace": wan_vace,
    "ltx": ltx,
    "ltx2": ltx2,
    "ltx2.3": ltx2,
    "hunyuan-video": hunyuan_video,
    "pixart-sigma": pixart,
    "sana": sana,
}
"""Each tiny checkpoint's denoiser under its authors' names."""


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@contextmanager
def gguf_writer(path: Path, architecture: str = "flux") -> Iterator[gguf.GGUFWriter]:
    writer = gguf.GGUFWriter(path, architecture)
    yield writer
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(path: Path, tensors: Mapping[str, Tensor], kind: str = "F32") -> Path:
    """Matrices whose rows divide into blocks of `kind` are stored so, all else in float32."""
    quantisation = gguf.GGMLQuantizationType[kind]
    block, _ = gguf.GGML_QUANT_SIZES[quantisation]
    with gguf_writer(path) as writer:
        for name, tensor in tensors.items():
            divides = tensor.dim() == 2 and tensor.shape[1] % block == 0
            own = quantisation if divides else gguf.GGMLQuantizationType.F32
            numbers = gguf.quants.quantize(tensor.float().numpy(), own)
            writer.add_tensor(name, numbers, raw_dtype=own)
    return path


def requantised(tensor: Tensor, kind: str) -> Tensor:
    """What `write_gguf` leaves of a tensor."""
    quantisation = gguf.GGMLQuantizationType[kind]
    if tensor.dim() != 2 or tensor.shape[1] % gguf.GGML_QUANT_SIZES[quantisation][0]:
        return tensor
    blocks = gguf.quants.quantize(tensor.float().numpy(), quantisation)
    return torch.from_numpy(gguf.quants.dequantize(blocks, quantisation))
