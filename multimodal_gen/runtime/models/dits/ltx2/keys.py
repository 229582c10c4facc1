"""Maps the parameters of `LTX2Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.ltx2.config import STREAMS, LTX2Config, StreamName

_PREFIX: dict[StreamName, str] = {"video": "", "audio": "audio_"}
_GATES: dict[StreamName, str] = {"video": "a2v_gate", "audio": "v2a_gate"}


def ltx2_key_map(config: LTX2Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers: keys.Modules = {}
    norms: keys.Modules = {}
    tables: keys.Modules = {}
    for stream in STREAMS:
        layers |= _embedders(stream, config)
        tables[f"{stream}.out_modulation.weight"] = (f"{_PREFIX[stream]}scale_shift_table",)
    for i in range(config.num_layers):
        block, theirs = f"blocks.{i}", f"transformer_blocks.{i}."
        for stream in STREAMS:
            prefix = theirs + _PREFIX[stream]
            gated = config.stream(stream).gated
            _self_attention(f"{block}.{stream}", f"{prefix}attn1", layers, norms, gated=gated)
            _cross_attention(f"{block}.{stream}.text", f"{prefix}attn2", layers, norms, gated=gated)
            layers[f"{block}.{stream}.mlp_in"] = (f"{prefix}ff.net.0.proj",)
            layers[f"{block}.{stream}.mlp_out"] = (f"{prefix}ff.net.2",)
            tables |= _tables(f"{block}.{stream}", prefix, f"{theirs}{stream}_", config)
        for ours, name, reader in (
            ("from_audio", "audio_to_video_attn", "video"),
            ("from_video", "video_to_audio_attn", "audio"),
        ):
            gated = config.gated_attn if reader == "video" else config.audio_gated_attn
            _cross_attention(f"{block}.{ours}", theirs + name, layers, norms, gated=gated)
    return keys.parameters(layers, norms) | tables


def _embedders(stream: StreamName, config: LTX2Config) -> keys.Modules:
    prefix = _PREFIX[stream]
    layers: keys.Modules = {
        f"{stream}.proj_in": (f"{prefix}proj_in",),
        f"{stream}.proj_out": (f"{prefix}proj_out",),
    }
    if config.use_prompt_embeddings:
        for i in (1, 2):
            name = f"{prefix}caption_projection.linear_{i}"
            layers[f"{stream}.text_embedder.linear_{i}"] = (name,)
    theirs = {
        "time": f"{prefix}time_embed",
        "exchange": f"av_cross_attn_{stream}_scale_shift",
        "exchange_gate": f"av_cross_attn_{stream}_{_GATES[stream]}",
    }
    if config.cross_attn_mod:
        theirs["prompt"] = f"{prefix}prompt_adaln"
    for ours, name in theirs.items():
        layers[f"{stream}.{ours}.linear"] = (f"{name}.linear",)
        for i in (1, 2):
            linear = f"{name}.emb.timestep_embedder.linear_{i}"
            layers[f"{stream}.{ours}.embedder.linear_{i}"] = (linear,)
    return layers


def _self_attention(
    ours: str, theirs: str, layers: keys.Modules, norms: keys.Modules, *, gated: bool
) -> None:
    gates = (f"{theirs}.to_gate_logits",) if gated else ()
    layers[f"{ours}.qkv"] = (*keys.each(f"{theirs}.to_{{}}", "qkv"), *gates)
    layers[f"{ours}.attention_out"] = (f"{theirs}.to_out.0",)
    norms[f"{ours}.qk_norm"] = keys.each(f"{theirs}.norm_{{}}", "qk")


def _cross_attention(
    ours: str, theirs: str, layers: keys.Modules, norms: keys.Modules, *, gated: bool
) -> None:
    gates = (f"{theirs}.to_gate_logits",) if gated else ()
    layers[f"{ours}.q"] = (f"{theirs}.to_q", *gates)
    layers[f"{ours}.kv"] = keys.each(f"{theirs}.to_{{}}", "kv")
    layers[f"{ours}.out"] = (f"{theirs}.to_out.0",)
    for letter in "qk":
        norms[f"{ours}.norm_{letter}"] = (f"{theirs}.norm_{letter}",)


def _tables(ours: str, prefix: str, stream: str, config: LTX2Config) -> keys.Modules:
    names = {
        "modulation": f"{prefix}scale_shift_table",
        "exchange": f"{stream}a2v_cross_attn_scale_shift_table",
    }
    if config.cross_attn_mod:
        names["prompt"] = f"{prefix}prompt_scale_shift_table"
    return {f"{ours}.{name}.weight": (theirs,) for name, theirs in names.items()}
