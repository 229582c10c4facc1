"""The native Qwen-Image transformer against diffusers' QwenImageTransformer2DModel."""

from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from native import evaluate, parts_of
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.keys import qwen_image_key_map
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer

TEXT_TOKENS = 11
Grids = tuple[Grid, ...]


def _reference(**config: Any) -> QwenImageTransformer2DModel:
    sizes = {
        "in_channels": 12,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 3,
        "joint_attention_dim": 20,
        "axes_dims_rope": (4, 6, 6),
    }
    reference = QwenImageTransformer2DModel(**{**sizes, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: QwenImageTransformer2DModel) -> QwenImageTransformer:
    config = QwenImageConfig.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = QwenImageTransformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in qwen_image_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _both(
    reference: QwenImageTransformer2DModel, grids: Grids, lengths: list[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Our velocity and theirs, for two rows."""
    config = reference.config
    generator = torch.Generator().manual_seed(1)
    tokens = [height * width for height, width in grids]
    latents = torch.randn(2, sum(tokens), config.in_channels, generator=generator)
    text = torch.randn(2, TEXT_TOKENS, config.joint_attention_dim, generator=generator)
    timestep = torch.tensor([0.93, 0.21])
    valid = None if lengths is None else torch.tensor(lengths)
    mask = None if valid is None else torch.arange(TEXT_TOKENS) < valid[:, None]
    shapes = [[(1, *grid) for grid in grids]] * 2
    theirs = reference(latents, text, mask, timestep, shapes, return_dict=False)[0]
    own, picture = latents.split_with_sizes([tokens[0], sum(tokens[1:])], dim=1)
    seen = picture if len(grids) > 1 else None
    inputs = {"hidden_states": own, "encoder_hidden_states": text, "timestep": timestep}
    inputs |= {"grids": grids, "picture": seen, "lengths": valid}
    ours = evaluate(_native(reference), **inputs)
    return ours, theirs[:, : tokens[0]]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"zero_cond_t": True},
        {"patch_size": 1, "out_channels": None, "num_attention_heads": 5},
        {"attention_head_dim": 20, "axes_dims_rope": [8, 2, 10], "num_layers": 1},
    ],
    ids=lambda config: ",".join(config) or "plain",
)
@pytest.mark.parametrize("lengths", [None, [4, TEXT_TOKENS]], ids=["whole", "padded"])
@pytest.mark.parametrize("grids", [((3, 5),), ((4, 4), (1, 7), (6, 3))], ids=["alone", "pictures"])
def test_velocity_equals_diffusers(
    config: dict[str, Any], grids: Grids, lengths: list[int] | None
) -> None:
    ours, theirs = _both(_reference(**config), grids, lengths)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_a_picture_that_does_not_fit_its_grid_is_an_error() -> None:
    model = _native(_reference())
    inputs = {
        "hidden_states": torch.zeros(1, 15, 12),
        "encoder_hidden_states": torch.zeros(1, 2, 20),
        "timestep": torch.tensor([0.5]),
    }
    with pytest.raises(ValueError, match="for 14 tokens, not 17"):
        evaluate(model, **inputs, grids=((3, 4),))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guidance_embeds", True),
        ("use_layer3d_rope", True),
        ("use_additional_t_cond", 1),
        ("axes_dims_rope", [4, 4]),
        ("num_layers", -1),
        ("colour", "red"),
    ],
)
def test_a_config_beyond_the_model_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        QwenImageConfig.from_dict({field: value})
