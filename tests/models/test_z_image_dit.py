"""The native Z-Image transformer against diffusers' ZImageTransformer2DModel."""

from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from native import parts_of, with_rotary
from tiny_checkpoints import weights

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.keys import z_image_key_map
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer

WIDTH = 12


def _reference(heads: int = 3, **config: Any) -> ZImageTransformer2DModel:
    sizes = {
        "in_channels": 4,
        "dim": heads * 16,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": heads,
        "n_kv_heads": heads,
        "cap_feat_dim": WIDTH,
        "axes_dims": [4, 6, 6],
        "axes_lens": [600, 64, 64],
    }
    reference = ZImageTransformer2DModel(**{**sizes, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: ZImageTransformer2DModel) -> ZImageTransformer:
    config = ZImageConfig.from_dict(reference.config)
    theirs = reference.state_dict()
    with torch.device("meta"):
        model = ZImageTransformer(config, parts_of())
    filled = {
        ours: torch.cat([theirs[name] for name in names])
        for ours, names in z_image_key_map(config).items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


class Inputs:
    """Rows whose texts have these lengths, and latents of `size`."""

    def __init__(self, lengths: list[int], size: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(1)
        rows = len(lengths)
        self.latents = torch.randn(rows, 4, *size, generator=generator)
        self.timestep = torch.rand(rows, generator=generator)
        self.texts = [torch.randn(length, WIDTH, generator=generator) for length in lengths]

    def expected(self, reference: ZImageTransformer2DModel) -> torch.Tensor:
        dtype = reference.dtype
        latents = [*self.latents.unsqueeze(2).to(dtype)]
        texts = [text.to(dtype) for text in self.texts]
        outputs = reference(latents, self.timestep, texts, return_dict=False)[0]
        return torch.stack(outputs).squeeze(2)

    def run(self, model: ZImageTransformer, run: Any = None) -> torch.Tensor:
        """The velocity; `run` is the model in another form."""
        dtype = next(model.parameters()).dtype
        lengths = [len(text) for text in self.texts]
        texts = torch.nn.utils.rnn.pad_sequence(self.texts, batch_first=True, padding_value=9.0)
        told = None if len(set(lengths)) == 1 else torch.tensor(lengths)
        inputs = {
            "latents": self.latents.to(dtype),
            "encoder_hidden_states": texts.to(dtype),
            "timestep": self.timestep,
            "lengths": told,
        }
        output: torch.Tensor = (model if run is None else run)(**with_rotary(model, **inputs))
        return output


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    ("lengths", "size"),
    [
        ([7], (8, 8)),
        ([32, 32], (4, 6)),
        ([70, 3, 33], (6, 10)),
        ([500, 31], (2, 14)),
        ([64], (16, 16)),
    ],
)
@pytest.mark.parametrize("heads", [3, 4])
def test_velocity_equals_diffusers(heads: int, lengths: list[int], size: tuple[int, int]) -> None:
    reference, inputs = _reference(heads), Inputs(lengths, size)
    assert _relative(inputs.run(_native(reference)), inputs.expected(reference)) < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"qk_norm": False},
        {"n_refiner_layers": 0},
        {"n_refiner_layers": 2, "n_layers": 3, "norm_eps": 1e-2},
        {"rope_theta": 100.0, "t_scale": 500.0},
        {"dim": 288, "n_heads": 18},  # wider than the embedded timestep
    ],
    ids=str,
)
def test_other_configs_equal_diffusers(change: dict[str, Any]) -> None:
    reference, inputs = _reference(**change), Inputs([40, 9], (6, 4))
    assert _relative(inputs.run(_native(reference)), inputs.expected(reference)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_diffusers(dtype: torch.dtype) -> None:
    reference, inputs = _reference(4), Inputs([40, 9], (6, 8))
    # Inputs that are exact in half precision, so that only the arithmetic differs.
    inputs.latents = inputs.latents.to(dtype).float()
    inputs.texts = [text.to(dtype).float() for text in inputs.texts]
    exact = inputs.expected(reference)
    ours = inputs.run(_native(reference).to(dtype))
    theirs = inputs.expected(reference.to(dtype))
    assert ours.dtype == dtype
    assert _relative(ours.float(), exact) < 1.2 * _relative(theirs.float(), exact)


def test_shapes_may_alternate() -> None:
    model = _native(_reference())
    wide, tall = Inputs([9], (4, 12)), Inputs([9], (12, 4))
    before = wide.run(model)
    tall.run(model)
    assert torch.equal(wide.run(model), before)


@pytest.mark.parametrize("lengths", [[20, 20], [40, 9]])
def test_the_graph_is_captured_whole(lengths: list[int]) -> None:
    model, inputs = _native(_reference()), Inputs(lengths, (6, 4))
    eager = inputs.run(model)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    assert _relative(inputs.run(model, compiled), eager) < 1e-5


@pytest.mark.parametrize("qk_norm", [False, True])
def test_key_map_names_every_parameter_and_every_tensor_once(qk_norm: bool) -> None:
    reference = _reference(qk_norm=qk_norm)
    keys = z_image_key_map(ZImageConfig.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("axes_dims", [32, 48, 50]),
        ("all_patch_size", [4]),
        ("siglip_feat_dim", 1152),
        ("dim", 3841),
        ("rope_theta", 0),
        ("qk_norm", 1),
        ("n_layer", 30),
    ],
)
def test_a_config_that_is_not_z_image_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        ZImageConfig.from_dict({"_class_name": "ZImageTransformer2DModel", field: value})
