"""Products with floating-point weights: which kernel, and that it agrees with torch's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.products import dense
from multimodal_gen.runtime.layers.products.dense import (
    dense_product,
    pack_weights,
    use_dense_product,
)

pytestmark = pytest.mark.skipif(not dense.HAS_ONEDNN, reason="no AVX-512")


def _operands(*batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*batch, 192, generator=generator)
    weight = torch.randn(768, 192, generator=generator) / 192**0.5
    return x, weight, torch.randn(768, generator=generator)


@pytest.mark.parametrize("has_bias", [True, False])
def test_agrees_with_float64_as_torchs_own_does(has_bias: bool) -> None:
    x, weight, bias = _operands(2, 40)
    used = bias if has_bias else None
    exact = F.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    with torch.inference_mode():
        assert dense.is_for_onednn(x, weight)
        found = dense_product(x, weight, used)
    assert found.shape == (2, 40, 768)
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


def test_takes_parts_of_inputs_and_of_weights() -> None:
    x, weight, bias = _operands(2, 80)
    part, rows = x[:, 7:47], slice(64, 704)
    with torch.inference_mode():
        found = dense_product(part, weight[rows], bias[rows])
    torch.testing.assert_close(found, F.linear(part, weight[rows], bias[rows]), atol=1e-5, rtol=0)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    x, weight, bias = _operands(3, 40)
    with torch.inference_mode():
        together = dense_product(x, weight, bias)
        alone = [dense_product(row, weight, bias) for row in x]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_small_and_strided_and_16_bit_operands_and_gradients_are_left_to_torch() -> None:
    x, weight, _ = _operands(2, 40)
    assert not dense.is_for_onednn(x[:1, :1], weight)
    assert not dense.is_for_onednn(x, weight.T.contiguous().T)
    assert not dense.is_for_onednn(x.bfloat16(), weight.bfloat16())
    with torch.inference_mode(mode=False):
        assert not dense.is_for_onednn(x, weight)


def test_linear_layers_of_libraries_use_it_and_keep_their_names() -> None:
    module = nn.Sequential(nn.Linear(192, 768), nn.Sequential(nn.GELU(), nn.Linear(768, 192)))
    names = set(module.state_dict())
    x = _operands(2, 40)[0]
    with torch.inference_mode():
        before = module(x)
        use_dense_product(module)
        after = module(x)
    assert {type(layer) for layer in module.modules() if isinstance(layer, nn.Linear)} == {
        dense.DenseLinear
    }
    assert set(module.state_dict()) == names
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_small_modules_keep_their_weights_packed_as_well() -> None:
    module = nn.Sequential(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192)).bfloat16()
    module[0].float()
    use_dense_product(module)
    x = _operands(2, 40)[0]
    before = module[0](x)
    pack_weights(module)
    assert module[0].packed is not None
    assert module[2].packed is None  # 16-bit
    torch.testing.assert_close(module[0](x), before, atol=1e-5, rtol=0)
    again = copy.deepcopy(module)  # as pipelines of libraries are given components
    assert again[0].packed is None
    torch.testing.assert_close(again[0](x), before, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_large_modules_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(192, 768))
    use_dense_product(module)
    monkeypatch.setattr(dense, "_MOST_PACKED", 192 * 768 * 4)
    pack_weights(module)
    assert module[0].packed is None


def test_one_graph_serves_any_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    _, weight, bias = _operands(1, 1)
    counts: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        counts.append(1)
        return graph

    with torch._dynamo.config.patch(disable=False), torch.inference_mode():
        compiled = torch.compile(dense_product, fullgraph=True, dynamic=True, backend=backend)
        for tokens in (4, 40, 400):
            x = _operands(2, tokens)[0]
            torch.testing.assert_close(
                compiled(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=0
            )
    assert len(counts) == 1
