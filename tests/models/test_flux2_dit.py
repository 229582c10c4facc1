"""The native FLUX.2 transformer against diffusers' Flux2Transformer2DModel."""

from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from native import evaluate, parts_of, with_rotary
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.flux2.config import Flux2Config
from multimodal_gen.runtime.models.dits.flux2.keys import flux2_key_map
from multimodal_gen.runtime.models.dits.flux2.model import Flux2Transformer

CHANNELS, WIDTH, TEXT_TOKENS = 12, 20, 7
Grids = list[tuple[int, int]]


def _reference(heads: int = 3, **config: Any) -> Flux2Transformer2DModel:
    sizes = {
        "in_channels": CHANNELS,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": heads,
        "joint_attention_dim": WIDTH,
        "timestep_guidance_channels": 32,
        "axes_dims_rope": (4, 6, 4, 2),
        "guidance_embeds": False,
    }
    reference = Flux2Transformer2DModel(**{**sizes, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: Flux2Transformer2DModel) -> Flux2Transformer:
    config = Flux2Config.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = Flux2Transformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in flux2_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(batch: int, grids: Grids, *, guidance: bool = False) -> dict[str, Any]:
    """Arguments of the native model."""
    generator = torch.Generator().manual_seed(1)
    own, *others = (height * width for height, width in grids)
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(batch, own, CHANNELS, generator=generator),
        "encoder_hidden_states": torch.randn(batch, TEXT_TOKENS, WIDTH, generator=generator),
        "timestep": torch.rand(batch, generator=generator),
        "grids": tuple(grids),
    }
    if others:
        shape = (batch, sum(others), CHANNELS)
        inputs["references"] = torch.randn(shape, generator=generator)
    if guidance:
        inputs["guidance"] = 1 + 4 * torch.rand(batch, generator=generator)
    return inputs


def _expected(reference: Flux2Transformer2DModel, inputs: dict[str, Any]) -> torch.Tensor:
    inputs = dict(inputs)
    own, *others = (torch.empty(1, 1, *grid) for grid in inputs.pop("grids"))
    ids = Flux2KleinPipeline._prepare_latent_ids(own)
    tokens = ids.shape[1]
    if others:
        ids = torch.cat((ids, Flux2KleinPipeline._prepare_image_ids(others)), dim=1)
        shown = (inputs["hidden_states"], inputs.pop("references"))
        inputs["hidden_states"] = torch.cat(shown, dim=1)
    text_ids = Flux2KleinPipeline._prepare_text_ids(inputs["encoder_hidden_states"])
    output: torch.Tensor = reference(
        **inputs, img_ids=ids[0], txt_ids=text_ids[0], return_dict=False
    )[0]
    return output[:, :tokens]


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("grids", [[(4, 4)], [(3, 7)], [(5, 1), (2, 3)], [(2, 3), (4, 4), (1, 2)]])
@pytest.mark.parametrize("heads", [3, 4])
def test_velocity_equals_diffusers(heads: int, grids: Grids) -> None:
    reference, inputs = _reference(heads), _inputs(3, grids)
    assert _relative(evaluate(_native(reference), **inputs), _expected(reference, inputs)) < 1e-5


@pytest.mark.parametrize("guided", [False, True])
def test_a_model_that_embeds_guidance_also_runs_without(guided: bool) -> None:
    reference = _reference(guidance_embeds=True)
    inputs = _inputs(2, [(3, 4)], guidance=guided)
    assert _relative(evaluate(_native(reference), **inputs), _expected(reference, inputs)) < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 1e-2, "mlp_ratio": 2.5},
        {"rope_theta": 100, "timestep_guidance_channels": 64},
        {"num_layers": 0},
        {"num_single_layers": 0},
        {"patch_size": 2, "out_channels": 5},
    ],
    ids=str,
)
def test_other_configs_equal_diffusers(change: dict[str, Any]) -> None:
    reference, inputs = _reference(**change), _inputs(2, [(3, 5), (2, 2)])
    assert _relative(evaluate(_native(reference), **inputs), _expected(reference, inputs)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_diffusers(dtype: torch.dtype) -> None:
    reference, inputs = _reference(4), _inputs(2, [(4, 4), (2, 3)])

    def converted(to: torch.dtype) -> dict[str, Any]:
        return {
            name: value.to(dtype).to(to) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }

    exact = _expected(reference, converted(torch.float32))
    ours = evaluate(_native(reference).to(dtype), **converted(dtype))
    theirs = _expected(reference.to(dtype), converted(dtype))
    assert ours.dtype == dtype
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_pictures_of_as_many_tokens_but_other_shapes_differ() -> None:
    model, inputs = _native(_reference()), _inputs(1, [(3, 3), (2, 6)])
    before = evaluate(model, **inputs)
    assert not torch.allclose(before, evaluate(model, **{**inputs, "grids": ((3, 3), (6, 2))}))
    assert torch.equal(evaluate(model, **inputs), before)


def test_the_graph_is_captured_whole() -> None:
    model, inputs = _native(_reference()), _inputs(2, [(3, 3), (2, 2)])
    eager = evaluate(model, **inputs)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(compiled(**with_rotary(model, **inputs)), eager) < 1e-5


@pytest.mark.parametrize("guidance", [False, True])
def test_key_map_names_every_parameter_and_every_tensor_once(guidance: bool) -> None:
    reference = _reference(guidance_embeds=guidance)
    keys = flux2_key_map(Flux2Config.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


@pytest.mark.parametrize("grids", [[(3, 5)], [(3, 4), (1, 1)]])
def test_grids_that_do_not_hold_the_tokens_are_an_error(grids: Grids) -> None:
    inputs = {**_inputs(1, [(3, 4)]), "grids": tuple(grids)}
    with pytest.raises(ValueError, match="rotary table"):
        evaluate(_native(_reference()), **inputs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("axes_dims_rope", [32, 32, 64]),
        ("num_layers", "8"),
        ("mlp_ratio", 0),
        ("guidance_embeds", 1),
        ("pooled_projection_dim", 768),
    ],
)
def test_a_config_that_is_not_flux2_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        Flux2Config.from_dict({"_class_name": "Flux2Transformer2DModel", field: value})
