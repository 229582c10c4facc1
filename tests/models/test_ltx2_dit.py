"""The native LTX-2 transformer against diffusers' LTX2VideoTransformer3DModel."""

from typing import Any

import pytest
import torch
from diffusers import LTX2VideoTransformer3DModel
from native import evaluate, parts_of, with_rotary
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config
from multimodal_gen.runtime.models.dits.ltx2.keys import ltx2_key_map
from multimodal_gen.runtime.models.dits.ltx2.model import LTX2Transformer
from multimodal_gen.runtime.models.dits.ltx2.rotary import VideoGrid

SIZES: dict[str, Any] = {
    "in_channels": 6,
    "out_channels": 6,
    "num_attention_heads": 3,
    "attention_head_dim": 12,
    "cross_attention_dim": 36,
    "audio_in_channels": 6,
    "audio_out_channels": 6,
    "audio_num_attention_heads": 3,
    "audio_attention_head_dim": 6,
    "audio_cross_attention_dim": 18,
    "num_layers": 2,
    "caption_channels": 20,
}
LTX_2_3: dict[str, Any] = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
    "rope_type": "split",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "2.0": {},
    "2.0 in halves": {"rope_type": "split"},
    "2.3": LTX_2_3,
    "2.3 in pairs": {**LTX_2_3, "rope_type": "interleaved"},
    "other heads": {
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 10,
        "audio_cross_attention_dim": 20,
        "rope_double_precision": False,
        "cross_attn_timestep_scale_multiplier": 1,
        "pos_embed_max_pos": 30,
        "vae_scale_factors": (4, 8, 16),
        "norm_eps": 1e-3,
    },
    "gates of the sound": {"audio_gated_attn": True, "causal_offset": 0},
}
VIDEO = {"frames": 3, "height": 2, "width": 4, "fps": 25.0}
AUDIO_TOKENS = 5


def _reference(**config: Any) -> LTX2VideoTransformer3DModel:
    reference = LTX2VideoTransformer3DModel(**{**SIZES, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: LTX2VideoTransformer3DModel) -> LTX2Transformer:
    config = LTX2Config.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = LTX2Transformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in ltx2_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(reference: LTX2VideoTransformer3DModel, batch: int, **video: Any) -> dict[str, Any]:
    """Of both texts, 7 and 7 tokens; a timestep for all of the video's tokens."""
    config, generator = reference.config, torch.Generator().manual_seed(1)
    grid = VideoGrid(**{**VIDEO, **video})
    captions = config.use_prompt_embeddings
    widths = [config.cross_attention_dim, config.audio_cross_attention_dim]
    video_text, audio_text = (
        torch.randn(batch, 7, config.caption_channels if captions else width, generator=generator)
        for width in widths
    )
    sigma = 1000 * torch.rand(batch, generator=generator)
    tokens = sum(grid.counts) + AUDIO_TOKENS
    return {
        "hidden_states": torch.randn(batch, tokens, config.in_channels, generator=generator),
        "timestep": sigma[:, None],
        "sigma": sigma,
        "encoder_hidden_states": video_text,
        "audio_encoder_hidden_states": audio_text,
        "grid": grid,
        "audio_tokens": AUDIO_TOKENS,
    }


def _expected(
    reference: LTX2VideoTransformer3DModel, inputs: dict[str, Any], **options: Any
) -> torch.Tensor:
    given = dict(inputs)
    grid, audio_tokens = given.pop("grid"), given.pop("audio_tokens")
    video, audio = given.pop("hidden_states").split((sum(grid.counts), audio_tokens), dim=1)
    if given["timestep"].shape[1] > 1:
        counts = torch.tensor(grid.counts)
        given["timestep"] = given["timestep"].repeat_interleave(counts, dim=1)
    result = reference(
        **given,
        hidden_states=video,
        audio_hidden_states=audio,
        audio_timestep=given["sigma"],
        num_frames=grid.frames,
        height=grid.height,
        width=grid.width,
        fps=grid.fps,
        audio_num_frames=audio_tokens,
        use_cross_timestep=True,
        return_dict=False,
        **options,
    )
    return torch.cat(result, dim=1)


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("video", [{}, {"frames": 1, "width": 3, "fps": 8.0}], ids=str)
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_velocity_equals_diffusers(config: dict[str, Any], video: dict[str, Any]) -> None:
    reference = _reference(**config)
    inputs = _inputs(reference, 2, **video)
    ours, theirs = evaluate(_native(reference), **inputs), _expected(reference, inputs)
    assert _relative(ours, theirs) < 1e-5
    audio = slice(-AUDIO_TOKENS, None)
    assert _relative(ours[:, audio], theirs[:, audio]) < 1e-5


@pytest.mark.parametrize("last_frame", [False, True], ids=["first", "first and last"])
@pytest.mark.parametrize("name", ["2.0", "2.3"])
def test_given_frames_have_timesteps_of_their_own(name: str, last_frame: bool) -> None:
    reference = _reference(**VARIANTS[name])
    inputs = _inputs(reference, 2, last_frame=last_frame)
    noisy = torch.tensor([0.0, 1.0, 0.0] if last_frame else [0.0, 1.0])
    inputs["timestep"] = inputs["timestep"] * noisy
    assert (
        _relative(evaluate(_native(reference), **inputs), _expected_with_last(reference, inputs))
        < 1e-5
    )


def _expected_with_last(
    reference: LTX2VideoTransformer3DModel, inputs: dict[str, Any]
) -> torch.Tensor:
    """With the positions of a last frame that follows, as diffusers' pipeline computes them."""
    grid: VideoGrid = inputs["grid"]
    if not grid.last_frame:
        return _expected(reference, inputs)
    coords = reference.rope.prepare_video_coords(
        2, grid.frames, grid.height, grid.width, torch.device("cpu"), fps=grid.fps
    )
    keyframe = coords[:, :, : grid.height * grid.width].clone()
    first = (grid.frames - 2) * reference.config.vae_scale_factors[0] + 1.0
    keyframe[:, 0] = torch.tensor([first, first + 1]) / grid.fps
    return _expected(reference, inputs, video_coords=torch.cat((coords, keyframe), dim=2))


def test_rows_may_skip_a_self_attention_or_keep_their_streams_apart() -> None:
    reference = _reference(**LTX_2_3)
    inputs, model = _inputs(reference, 3), _native(reference)
    plain = evaluate(model, **inputs)
    marks = {"perturbed": torch.tensor([0.0, 1, 0]), "isolated": torch.tensor([0.0, 0, 1])}
    ours = evaluate(model, **inputs, **marks)
    skipping = _expected(reference, inputs, spatio_temporal_guidance_blocks=[1])
    apart = _expected(reference, inputs, isolate_modalities=True)
    for row, theirs in enumerate((_expected(reference, inputs), skipping, apart)):
        assert _relative(ours[row], theirs[row]) < 1e-5
    assert all(_relative(ours[row], plain[row]) > 1e-2 for row in (1, 2))


def test_a_row_does_not_depend_on_its_batch() -> None:
    reference = _reference(**LTX_2_3)
    model, inputs = _native(reference), _inputs(reference, 3)
    together = evaluate(model, **inputs)
    for row in range(3):
        own = {
            name: value[row : row + 1] if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        assert _relative(together[row : row + 1], evaluate(model, **own)) < 1e-5


def test_half_precision_is_no_further_from_float32_than_diffusers() -> None:
    reference = _reference(**LTX_2_3, num_layers=3)
    inputs = _inputs(reference, 2)
    inputs = {
        name: value.bfloat16().float() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    exact, model = _expected(reference, inputs), _native(reference).bfloat16()
    half = {name: value.bfloat16() if "states" in name else value for name, value in inputs.items()}
    ours, theirs = evaluate(model, **half), _expected(reference.bfloat16(), half)
    assert ours.dtype == torch.bfloat16
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_the_graph_is_captured_whole() -> None:
    reference = _reference(**{**LTX_2_3, "num_layers": 1})
    model, inputs = _native(reference), _inputs(reference, 2)
    eager = evaluate(model, **inputs)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(compiled(**with_rotary(model, **inputs)), eager) < 1e-5


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_key_map_names_every_parameter_and_every_tensor_once(config: dict[str, Any]) -> None:
    reference = _reference(**config)
    keys = ltx2_key_map(LTX2Config.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", 2),
        ("num_layers", 0),
        ("attention_head_dim", 13),
        ("norm_eps", "small"),
        ("gated_attn", 1),
        ("audio_cross_attn_mod", True),
        ("audio_in_channels", 64),
        ("vae_scale_factors", [8, 32]),
        ("rope_type", "none"),
        ("use_prompt_adaln_single", False),
        ("use_keyframes_abs_pos_embedding", True),
    ],
)
def test_a_config_that_is_not_ltx_2_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        LTX2Config.from_dict({"_class_name": "LTX2VideoTransformer3DModel", field: value})
