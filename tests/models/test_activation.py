"""GELU equals torch's, in one block and in several."""

import pytest
import torch
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import gelu_tanh


@pytest.mark.parametrize("shape", [(2, 5, 8), (3, 70, 1000), (1, 1, 300_000), (2, 0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_equals_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    wide = 4 * torch.randn(*shape[:-1], shape[-1] + 3, generator=torch.Generator().manual_seed(0))
    x = wide.to(dtype)[..., 3:]  # a slice, as a fused projection gives it
    before = x.clone()
    torch.testing.assert_close(gelu_tanh(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=1e-5)
    assert torch.equal(x, before)


def test_gelu_is_finite_far_out() -> None:
    x = torch.tensor([[-1e4, -50.0, 0.0, 50.0, 1e4]])
    assert torch.equal(gelu_tanh(x), torch.tensor([[0.0, 0.0, 0.0, 50.0, 1e4]]))
