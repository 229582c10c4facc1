"""The native FLUX transformer against diffusers' FluxTransformer2DModel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from native import evaluate, parts_of, with_rotary
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.keys import flux_key_map
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer

TEXT_TOKENS = 7


def _reference(heads: int, guidance_embeds: bool, **config: Any) -> FluxTransformer2DModel:
    reference = FluxTransformer2DModel(
        in_channels=12,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=20,
        pooled_projection_dim=10,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
        **config,
    )
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: FluxTransformer2DModel) -> FluxTransformer:
    config = FluxConfig.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = FluxTransformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in flux_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(batch: int, grid: tuple[int, int], guidance: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "hidden_states": torch.randn(batch, grid[0] * grid[1], 12, generator=generator),
        "encoder_hidden_states": torch.randn(batch, TEXT_TOKENS, 20, generator=generator),
        "pooled_projections": torch.randn(batch, 10, generator=generator),
        "timestep": torch.rand(batch, generator=generator),
        "guidance": 1 + 4 * torch.rand(batch, generator=generator) if guidance else None,
    }
    return inputs


def _expected(
    reference: FluxTransformer2DModel, inputs: dict[str, Any], grid: tuple[int, int]
) -> torch.Tensor:
    height, width = grid
    img_ids = torch.zeros(height, width, 3)
    img_ids[..., 1] += torch.arange(height)[:, None]
    img_ids[..., 2] += torch.arange(width)
    ids = {"img_ids": img_ids.view(-1, 3), "txt_ids": torch.zeros(TEXT_TOKENS, 3)}
    output: torch.Tensor = reference(**inputs, **ids, return_dict=False)[0]
    return output


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (5, 1)])
@pytest.mark.parametrize("heads", [3, 4, 6])
@pytest.mark.parametrize("guidance", [False, True])
def test_velocity_equals_diffusers(guidance: bool, heads: int, grid: tuple[int, int]) -> None:
    reference = _reference(heads, guidance)
    inputs = _inputs(3, grid, guidance)
    ours = evaluate(_native(reference), **inputs, grids=[grid])
    assert _relative(ours, _expected(reference, inputs, grid)) < 1e-5


def test_velocity_equals_diffusers_on_the_bundled_model(bundled_model: Path) -> None:
    reference = FluxTransformer2DModel.from_pretrained(bundled_model / "transformer")
    generator = torch.Generator().manual_seed(1)
    config = reference.config
    inputs = {
        "hidden_states": torch.randn(2, 36, config.in_channels, generator=generator),
        "encoder_hidden_states": torch.randn(
            2, TEXT_TOKENS, config.joint_attention_dim, generator=generator
        ),
        "pooled_projections": torch.randn(2, config.pooled_projection_dim, generator=generator),
        "timestep": torch.tensor([0.95, 0.2]),
        "guidance": None,
    }
    with torch.inference_mode():
        ours = evaluate(_native(reference), **inputs, grids=[(6, 6)])
        assert _relative(ours, _expected(reference, inputs, (6, 6))) < 1e-5


def test_velocity_equals_diffusers_with_patches_and_other_output_channels() -> None:
    reference = _reference(3, False, patch_size=2, out_channels=5)
    inputs = _inputs(2, (4, 3), False)
    ours = evaluate(_native(reference), **inputs, grids=[(4, 3)])
    assert ours.shape == (2, 12, 20)
    assert _relative(ours, _expected(reference, inputs, (4, 3))) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_diffusers(dtype: torch.dtype) -> None:
    reference, inputs = _reference(4, True), _inputs(2, (4, 4), True)
    # Inputs that are exact in half precision, so that only the arithmetic differs.
    inputs = {name: value.to(dtype).float() for name, value in inputs.items()}
    exact = _expected(reference, inputs, (4, 4))
    model = _native(reference).to(dtype)
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    ours = evaluate(model, **inputs, grids=[(4, 4)])
    theirs = _expected(reference.to(dtype), inputs, (4, 4))
    assert ours.dtype == dtype
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = _native(_reference(3, True))
    inputs = _inputs(5, (4, 3), True)
    together = evaluate(model, **inputs, grids=[(4, 3)])
    for row in range(5):
        alone = evaluate(
            model, **{name: value[row : row + 1] for name, value in inputs.items()}, grids=[(4, 3)]
        )
        assert _relative(together[row : row + 1], alone) < 1e-5


def test_shapes_may_alternate() -> None:
    model = _native(_reference(3, False))
    first = _inputs(1, (2, 6), False)
    before = evaluate(model, **first, grids=[(2, 6)])
    turned = evaluate(model, **first, grids=[(6, 2)])
    assert not torch.allclose(before, turned)
    assert torch.equal(evaluate(model, **first, grids=[(2, 6)]), before)


def test_evaluation_leaves_its_inputs_alone() -> None:
    inputs = _inputs(2, (3, 3), True)
    copies = {name: value.clone() for name, value in inputs.items()}
    evaluate(_native(_reference(3, True)), **inputs, grids=[(3, 3)])
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)


def test_the_graph_is_captured_whole() -> None:
    model, inputs = _native(_reference(3, True)), _inputs(2, (3, 3), True)
    eager = evaluate(model, **inputs, grids=[(3, 3)])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(compiled(**with_rotary(model, **inputs, grids=[(3, 3)])), eager) < 1e-5


@pytest.mark.parametrize("guidance", [False, True])
def test_key_map_names_every_parameter_and_every_tensor_once(guidance: bool) -> None:
    reference = _reference(4, guidance)
    keys = flux_key_map(FluxConfig.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


def test_a_grid_that_does_not_hold_the_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="rotary table for 22 tokens"):
        evaluate(_native(_reference(3, False)), **_inputs(1, (3, 4), False), grids=[(3, 5)])


def test_missing_guidance_is_an_error() -> None:
    with pytest.raises(ValueError, match="guidance"):
        evaluate(_native(_reference(3, True)), **_inputs(1, (3, 4), False), grids=[(3, 4)])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("axes_dims_rope", [16, 56, 58]),
        ("axes_dims_rope", [15, 57, 56]),
        ("axes_dims_rope", None),
        ("num_layers", "19"),
        ("num_attention_heads", 0),
        ("guidance_embeds", 1),
        ("pooled_projection", 768),
    ],
)
def test_a_config_that_is_not_flux_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        FluxConfig.from_dict({"_class_name": "FluxTransformer2DModel", field: value})
