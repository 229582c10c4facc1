"""The native MiniMax-H3 transformer against diffusers' MiniMaxH3Transformer3DModel."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import MiniMaxH3Transformer3DModel
from native import parts_of
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config
from multimodal_gen.runtime.models.dits.minimax_h3.keys import minimax_h3_key_map
from multimodal_gen.runtime.models.dits.minimax_h3.model import Counts, MiniMaxH3Transformer

SIZES: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 14,
    "hidden_size": 20,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "ffn_dim": 24,
    "in_channels": 3,
    "audio_in_channels": 5,
    "text_dim": 9,
    "freq_dim": 8,
    "time_embed_hidden_dim": 10,
    "time_embed_dim": 6,
    "rope_freq_dim": 2,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "other sizes": {
        "num_refiner_layers": 2,
        "rope_freq_dim": 1,
        "rope_theta": 100.0,
        "patch_size": (1, 1, 3),
        "norm_eps": 1e-2,
        "qk_norm_eps": 1e-3,
        "final_norm_eps": 1e-1,
    },
    "all turns": {"attention_head_dim": 12},
}
GAINS = {"attn.norm_q": 2.0, "attn.norm_k": 2.0}
GIVEN = Counts(video=12, given=7, sound=6, given_sound=4, seen=3)
COUNTS = [Counts(video=8, given=0, sound=4, given_sound=0, seen=0), GIVEN]
TIMES = (0.2, 0.6, 0.999, 1.0)
PROMPT = 5


def _reference(**config: Any) -> MiniMaxH3Transformer3DModel:
    reference = MiniMaxH3Transformer3DModel(**{**SIZES, **config})
    weights.fill(reference, "transformer", 0, torch.float32, GAINS)
    return reference.eval().requires_grad_(False)


def _native(reference: MiniMaxH3Transformer3DModel) -> MiniMaxH3Transformer:
    config = MiniMaxH3Config.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = MiniMaxH3Transformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in minimax_h3_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(model: MiniMaxH3Transformer, counts: Counts, seed: int = 1) -> dict[str, Any]:
    config, generator = model.config, torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    text = counts.seen + PROMPT
    positions = 20 * torch.rand(1, sum(counts[:4]) + text, 3, generator=generator)
    return {
        "hidden_states": drawn(counts.video + counts.given, config.token_channels),
        "audio_hidden_states": drawn(counts.sound + counts.given_sound, config.audio_in_channels),
        "encoder_hidden_states": drawn(text, config.text_dim),
        "timestep": torch.tensor([TIMES if counts.given else TIMES[:2]]),
        "positions": positions,
        "rotary": model.rotary(positions),
        "counts": counts,
    }


def _velocity(model: MiniMaxH3Transformer, inputs: dict[str, Any]) -> torch.Tensor:
    given = {name: value for name, value in inputs.items() if name != "positions"}
    states = given.pop("encoder_hidden_states")
    text = model.refined(states, given.get("lengths"), None)
    return model(**given, text=text)


def _expected(reference: MiniMaxH3Transformer3DModel, inputs: dict[str, Any]) -> torch.Tensor:
    counts: Counts = inputs["counts"]
    ends = torch.tensor([0, *counts[:4], counts.seen, PROMPT]).cumsum(0).tolist()
    video, given, sound, given_sound, seen, prompt = (
        torch.arange(start, stop) for start, stop in pairwise(ends)
    )
    tags, times = torch.zeros(2, ends[-1], dtype=torch.long)
    tags[torch.cat((sound, given_sound))] = 2
    tags[prompt] = 1
    for at, own in ((1, sound), (2, given), (3, given_sound)):
        times[own] = at
    result = reference(
        hidden_states=inputs["hidden_states"],
        audio_hidden_states=inputs["audio_hidden_states"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        timestep=inputs["timestep"][0],
        timestep_indices=times,
        token_tags=tags,
        position_ids=inputs["positions"][0],
        video_indices=torch.cat((video, given)),
        audio_indices=torch.cat((sound, given_sound)),
        text_indices=torch.cat((seen, prompt)),
        return_dict=False,
    )
    made = (result[0][:, : counts.video], result[1][:, : counts.sound])
    return torch.cat([each.flatten(1) for each in made], dim=1)


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("counts", COUNTS, ids=["text", "given"])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_velocity_equals_diffusers(config: dict[str, Any], counts: Counts) -> None:
    reference = _reference(**config)
    model = _native(reference)
    inputs = _inputs(model, counts)
    assert _relative(_velocity(model, inputs), _expected(reference, inputs)) < 1e-5


def test_padding_of_a_shorter_text_changes_nothing() -> None:
    model = _native(_reference())
    inputs = [_inputs(model, GIVEN, seed) for seed in (1, 2)]
    alone = torch.cat([_velocity(model, each) for each in inputs])
    inputs = [_inputs(model, GIVEN, seed) for seed in (1, 2)]
    for name in ("encoder_hidden_states", "rotary"):
        longer = torch.cat((inputs[1][name], 9 * torch.ones_like(inputs[1][name][:, :4])), dim=1)
        inputs[1][name] = longer
        inputs[0][name] = torch.cat((inputs[0][name], torch.zeros_like(longer[:, -4:])), dim=1)
    length = GIVEN.seen + PROMPT
    both = {
        name: torch.cat([each[name] for each in inputs])
        for name in inputs[0]
        if name not in ("counts", "positions")
    }
    joined = _velocity(model, {**both, "counts": GIVEN, "lengths": torch.tensor([length, length])})
    assert _relative(joined, alone) < 1e-5


def test_key_map_has_every_parameter_and_every_tensor_once() -> None:
    reference = _reference(num_refiner_layers=2)
    model = _native(reference)
    key_map = minimax_h3_key_map(model.config)
    assert key_map.keys() == model.state_dict().keys()
    theirs = [name for names in key_map.values() for name in names]
    assert sorted(theirs) == sorted(reference.state_dict())


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"patch_size": [2, 2, 2]}, "patch_size"),
        ({"patch_size": 2}, "patch_size"),
        ({"rope_freq_dim": 3}, "at most 2"),
        ({"freq_dim": 7}, "even"),
        ({"norm_eps": 0}, "above 0"),
        ({"num_layers": 0}, "at least 1"),
        ({"cross_attention": 3}, "no field"),
    ],
    ids=str,
)
def test_other_configs_are_refused(change: dict[str, Any], allowed: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=allowed):
        MiniMaxH3Config.from_dict({**SIZES, **change})
