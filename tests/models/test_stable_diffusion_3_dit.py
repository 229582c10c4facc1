"""The native Stable Diffusion 3 transformer against diffusers' SD3Transformer2DModel."""

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from native import parts_of
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.keys import sd3_key_map
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer

MEDIUM = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"qk_norm": "rms_norm"},
    MEDIUM,
    {"qk_norm": "rms_norm", "dual_attention_layers": (2, 7)},
    {"dual_attention_layers": (1,), "num_layers": 1},
    {"patch_size": 1, "in_channels": 5, "out_channels": None},
    {"patch_size": 3, "pos_embed_max_size": 9, "num_attention_heads": 3},
]


def _reference(**config: Any) -> SD3Transformer2DModel:
    heads = config.get("num_attention_heads", 4)
    sizes: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 6,
        "out_channels": 6,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": heads,
        "joint_attention_dim": 20,
        "caption_projection_dim": 8 * heads,
        "pooled_projection_dim": 10,
        "pos_embed_max_size": 12,
        **config,
    }
    reference = SD3Transformer2DModel(**sizes)
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: SD3Transformer2DModel) -> SD3Transformer:
    config = SD3Config.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = SD3Transformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in sd3_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(reference: SD3Transformer2DModel, size: tuple[int, int] = (6, 18)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    channels = reference.config.in_channels
    return {
        "hidden_states": torch.randn(3, channels, *size, generator=generator),
        "encoder_hidden_states": torch.randn(3, 7, 20, generator=generator),
        "pooled_projections": torch.randn(3, 10, generator=generator),
        "timestep": torch.tensor([1000.0, 312.5, 4.0]),
    }


def _ours(model: SD3Transformer, inputs: dict[str, Any]) -> torch.Tensor:
    output: torch.Tensor = model(*inputs.values())
    return output


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_velocity_equals_diffusers(config: dict[str, Any]) -> None:
    reference = _reference(**config)
    patch = reference.config.patch_size
    inputs = _inputs(reference, (3 * patch, 8 * patch))
    theirs = reference(**inputs, return_dict=False)[0]
    assert _relative(_ours(_native(reference), inputs), theirs) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_diffusers(dtype: torch.dtype) -> None:
    reference = _reference(**MEDIUM)
    # Inputs that are exact in half precision, so that only the arithmetic differs.
    inputs = {name: value.to(dtype).float() for name, value in _inputs(reference).items()}
    exact = reference(**inputs, return_dict=False)[0]
    model = _native(reference).to(dtype)
    timestep = inputs.pop("timestep")
    inputs = {**{name: value.to(dtype) for name, value in inputs.items()}, "timestep": timestep}
    theirs = reference.to(dtype)(**inputs, return_dict=False)[0]
    ours = _ours(model, inputs)
    assert ours.dtype == dtype
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_a_row_does_not_depend_on_its_batch() -> None:
    reference = _reference(**MEDIUM)
    model, inputs = _native(reference), _inputs(reference)
    together = _ours(model, inputs)
    for row in range(3):
        alone = _ours(model, {name: value[row : row + 1] for name, value in inputs.items()})
        assert _relative(together[row : row + 1], alone) < 1e-5


def test_evaluation_leaves_its_inputs_alone() -> None:
    reference = _reference(**MEDIUM)
    inputs = _inputs(reference)
    copies = {name: value.clone() for name, value in inputs.items()}
    _ours(_native(reference), inputs)
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)


def test_the_graph_is_captured_whole() -> None:
    reference = _reference(**MEDIUM)
    model, inputs = _native(reference), _inputs(reference)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(compiled(*inputs.values()), _ours(model, inputs)) < 1e-5


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_key_map_names_every_parameter_and_every_tensor_once(config: dict[str, Any]) -> None:
    reference = _reference(**config)
    keys = sd3_key_map(SD3Config.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


def test_a_picture_larger_than_the_model_has_places_for_is_an_error() -> None:
    reference = _reference()
    with pytest.raises(ValueError, match="at most 12"):
        _ours(_native(reference), _inputs(reference, (26, 8)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", 0),
        ("caption_projection_dim", 1153),
        ("out_channels", 4),
        ("dual_attention_layers", "0"),
        ("qk_norm", "layer_norm"),
        ("pos_embed_max_size", None),
        ("image_size", 128),
    ],
)
def test_a_config_that_is_not_stable_diffusion_3_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        SD3Config.from_dict({"_class_name": "SD3Transformer2DModel", field: value})
