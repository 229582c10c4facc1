"""The native Wan transformer against diffusers' WanTransformer3DModel."""

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from native import evaluate, parts_of, with_rotary
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.keys import wan_key_map
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer

PICTURE = {"image_dim": 10, "added_kv_proj_dim": 36}
VARIANTS: dict[str, dict[str, Any]] = {
    "text": {},
    "picture": {**PICTURE, "in_channels": 9, "out_channels": 4},
    "picture with positions": {**PICTURE, "pos_embed_seq_len": 6},
    "picture among the text": {"image_dim": 10},
    "no cross norm": {"cross_attn_norm": False, "eps": 1e-4},
    "other patches": {"patch_size": (2, 1, 2), "out_channels": None},
    "wide": {"num_attention_heads": 5, "attention_head_dim": 20, "freq_dim": 14},
}


def _reference(**config: Any) -> WanTransformer3DModel:
    sizes = {
        "num_attention_heads": 3,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 20,
        "freq_dim": 32,
        "ffn_dim": 40,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    }
    reference = WanTransformer3DModel(**{**sizes, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: WanTransformer3DModel) -> WanTransformer:
    config = WanConfig.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = WanTransformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in wan_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs(
    reference: WanTransformer3DModel, batch: int, size: tuple[int, int, int], text: int = 512
) -> dict[str, torch.Tensor]:
    config = reference.config
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "hidden_states": torch.randn(batch, config.in_channels, *size, generator=generator),
        "timestep": 1000 * torch.rand(batch, 1, generator=generator),
        "encoder_hidden_states": torch.randn(batch, text, config.text_dim, generator=generator),
    }
    if config.image_dim is not None:
        shape = (batch, 6, config.image_dim)
        inputs["encoder_hidden_states_image"] = torch.randn(shape, generator=generator)
    return inputs


def _expected(reference: WanTransformer3DModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Row by row, as diffusers' embedding of positions halves the rows."""
    rows = []
    for row in range(len(inputs["timestep"])):
        own = {name: value[row : row + 1] for name, value in inputs.items()}
        own["timestep"] = _their_timestep(own["timestep"], own["hidden_states"])
        if reference.config.pos_embed_seq_len is not None:
            picture = own["encoder_hidden_states_image"]
            own["encoder_hidden_states_image"] = picture.view(2, -1, picture.shape[-1])
        rows.append(reference(**own, return_dict=False)[0])
    return torch.cat(rows)


def _their_timestep(timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """[1] for all tokens, or one for each where the first frame has its own."""
    if timestep.shape[1] == 1:
        return timestep[:, 0]
    frames, height, width = latents.shape[2:]
    frame = height * width // 4
    return timestep[:, [0] * frame + [1] * frame * (frames - 1)]


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("size", [(2, 4, 6), (4, 2, 10)])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_velocity_equals_diffusers(config: dict[str, Any], size: tuple[int, int, int]) -> None:
    reference = _reference(**config)
    inputs = _inputs(reference, 2, size)
    assert _relative(evaluate(_native(reference), **inputs), _expected(reference, inputs)) < 1e-5


@pytest.mark.parametrize("text", [3, 509])
def test_pictures_beside_texts_of_other_lengths_count_as_in_diffusers(text: int) -> None:
    reference = _reference(**PICTURE)
    inputs = _inputs(reference, 1, (1, 4, 4), text)
    assert _relative(evaluate(_native(reference), **inputs), _expected(reference, inputs)) < 1e-5


def test_the_first_frame_may_have_a_timestep_of_its_own() -> None:
    reference = _reference()
    inputs = _inputs(reference, 2, (3, 4, 6), text=9)
    inputs["timestep"] = torch.tensor([[0.0, 700.0], [400.0, 400.0]])
    ours = evaluate(_native(reference), **inputs)
    assert _relative(ours, _expected(reference, inputs)) < 1e-5
    inputs["timestep"] = torch.tensor([[700.0, 700.0], [400.0, 400.0]])
    assert _relative(ours, evaluate(_native(reference), **inputs)) > 1e-2


def test_half_precision_is_no_further_from_float32_than_diffusers() -> None:
    reference = _reference(num_layers=3, num_attention_heads=4)
    inputs = _inputs(reference, 2, (3, 4, 4), text=9)
    inputs = {name: value.bfloat16().float() for name, value in inputs.items()}
    exact = _expected(reference, inputs)
    model = _native(reference)
    for name, parameter in model.named_parameters():
        if not any(part in WanTransformer.keep_in_float32 for part in name.split(".")):
            parameter.data = parameter.data.bfloat16()
    for name, parameter in reference.named_parameters():
        kept = reference._keep_in_fp32_modules or ()
        if not any(part in kept for part in name.split(".")):
            parameter.data = parameter.data.bfloat16()
    half = {
        name: value if name == "timestep" else value.bfloat16() for name, value in inputs.items()
    }
    ours = evaluate(model, **half)
    assert ours.dtype == torch.bfloat16
    theirs = _expected(reference, half)
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_a_row_does_not_depend_on_its_batch() -> None:
    reference = _reference()
    model, inputs = _native(reference), _inputs(reference, 4, (2, 4, 4), text=9)
    together = evaluate(model, **inputs)
    for row in range(4):
        alone = evaluate(model, **{name: value[row : row + 1] for name, value in inputs.items()})
        assert _relative(together[row : row + 1], alone) < 1e-5


def test_shapes_may_alternate() -> None:
    reference = _reference()
    model, wide = _native(reference), _inputs(reference, 1, (2, 4, 8), text=9)
    tall = {**wide, "hidden_states": wide["hidden_states"].transpose(3, 4)}
    before = evaluate(model, **wide)
    assert not torch.allclose(before, evaluate(model, **tall).transpose(3, 4))
    assert torch.equal(evaluate(model, **wide), before)


def test_the_graph_is_captured_whole() -> None:
    reference = _reference(**PICTURE)
    model, inputs = _native(reference), _inputs(reference, 2, (2, 4, 4))
    eager = evaluate(model, **inputs)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(compiled(**with_rotary(model, **inputs)), eager) < 1e-5


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_key_map_names_every_parameter_and_every_tensor_once(config: dict[str, Any]) -> None:
    reference = _reference(**config)
    keys = wan_key_map(WanConfig.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", [1, 2]),
        ("patch_size", [1, 2, 0]),
        ("num_layers", 0),
        ("attention_head_dim", 13),
        ("eps", "small"),
        ("cross_attn_norm", 1),
        ("vace_layers", [0, 5]),
    ],
)
def test_a_config_that_is_not_wan_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        WanConfig.from_dict({"_class_name": "WanTransformer3DModel", field: value})
