"""Names in Lightricks/LTX-2: a model of video and sound, next to the text connectors."""

from __future__ import annotations

import re

from torch import Tensor

_NAMES = (
    (r"^(audio_)?patchify_proj\.", r"\1proj_in."),
    (r"^(audio_)?adaln_single\.", r"\1time_embed."),
    (r"^(audio_)?prompt_adaln_single\.", r"\1prompt_adaln."),
    (r"^av_ca_(audio|video)_scale_shift_adaln_single\.", r"av_cross_attn_\1_scale_shift."),
    (r"^av_ca_a2v_gate_adaln_single\.", "av_cross_attn_video_a2v_gate."),
    (r"^av_ca_v2a_gate_adaln_single\.", "av_cross_attn_audio_v2a_gate."),
    (r"\.scale_shift_table_a2v_ca_(audio|video)$", r".\1_a2v_cross_attn_scale_shift_table"),
    (r"\.([qk])_norm\.", r".norm_\1."),
)
"""Patterns of original names, and what diffusers has in their place."""


def ltx2_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names; all others are the same."""
    converted = {}
    for name, tensor in tensors.items():
        for theirs, ours in _NAMES:
            name = re.sub(theirs, ours, name)
        converted[name] = tensor
    return converted
