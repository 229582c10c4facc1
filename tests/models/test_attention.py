"""The attention backends agree with float64, and none attends to padding.

Kernels of GPUs are doubles here, which check what they are given.
"""

import attention_kernels
import pytest
import torch
from attention_kernels import exact

from multimodal_gen.configs.attention import ATTENTION_BACKENDS
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.attention.attention import backend, limits_of
from multimodal_gen.runtime.layers.attention.backends import sdpa


@pytest.fixture
def undoubled() -> None:
    """Leaves the kernels as they are."""


@pytest.fixture(autouse=True)
def _doubles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "undoubled" not in request.fixturenames:
        attention_kernels.install(monkeypatch)


def _qkv(batch: int = 3, tokens: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = torch.randn(3, batch, tokens, 4, 8, generator=torch.Generator().manual_seed(0))
    return q, k, v


def _textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q kᵀ / √D) v of one row, a head at a time."""
    heads = [
        ((q[:, h] @ k[:, h].T) / q.shape[-1] ** 0.5).softmax(-1) @ v[:, h]
        for h in range(q.shape[1])
    ]
    return torch.stack(heads, dim=1)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_attention_is_softmax_of_scaled_scores(name: str) -> None:
    q, k, v = _qkv()
    expected = torch.stack([_textbook(*row) for row in zip(q, k, v, strict=True)])
    torch.testing.assert_close(backend(name)(q, k, v), expected)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_padded_keys_change_nothing_whatever_they_hold(name: str) -> None:
    attention = backend(name)
    q, k, v = _qkv()
    lengths = torch.tensor([11, 5, 1])
    k[1, 5:], v[1, 5:], k[2, 1:], v[2, 1:] = 1e4, -1e4, 1e4, -1e4
    out = attention(q, k, v, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = attention(q[row, None], k[row, None, :length], v[row, None, :length])
        torch.testing.assert_close(out[row, None], alone)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_full_lengths_equal_none(name: str) -> None:
    attention = backend(name)
    q, k, v = _qkv()
    torch.testing.assert_close(attention(q, k, v, torch.full((3,), 11)), attention(q, k, v))


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_queries_and_keys_may_differ_in_number(name: str) -> None:
    q, k, v = _qkv()
    out = backend(name)(q[:, :4], k, v)
    torch.testing.assert_close(out, backend(name)(q, k, v)[:, :4])


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_the_result_has_the_dtype_of_the_values(name: str) -> None:
    q, k, v = (x.bfloat16() for x in _qkv())
    out = backend(name)(q, k, v)
    assert out.dtype == torch.bfloat16
    reference = select_attention("math")(q.float(), k.float(), v.float())
    torch.testing.assert_close(out.float(), reference, atol=0.03, rtol=0.03)


def test_auto_is_one_of_the_backends() -> None:
    assert select_attention("auto") in [backend(name) for name in ATTENTION_BACKENDS]


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"attention_backend='flash9'.*math, sdpa"):
        select_attention("flash9")


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
def test_the_log_sum_exp_comes_with_the_output(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v = (x.to(dtype) for x in _qkv())
    out, log_sum_exp = backend(name).partial(q[:, :7], k, v)
    expected = exact(q[:, :7], k, v)
    assert (out.dtype, log_sum_exp.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(out.double(), expected[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(log_sum_exp.double(), expected[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_keys_of_which_none_is_valid_add_nothing(name: str) -> None:
    q, k, v = _qkv()
    lengths = torch.tensor([0, 11, 5])
    k[0], k[2, 5:] = 1e4, 1e4
    out, log_sum_exp = backend(name).partial(q, k, v, lengths)
    expected = exact(q, k, v, lengths)
    assert not out[0].any()
    assert torch.isneginf(log_sum_exp[0]).all()
    torch.testing.assert_close(out.double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_sum_exp.double(), expected[1], atol=1e-5, rtol=1e-5)


CUDA_BACKENDS = [name for name in ATTENTION_BACKENDS if limits_of(name) is not None]


@pytest.mark.parametrize("name", CUDA_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_queries_keys_and_values_of_one_product_are_not_copied(
    name: str, dtype: torch.dtype
) -> None:
    """As they come from one layer, [B, S, 3, H, D]."""
    qkv = torch.randn(2, 70, 3, 4, 16).to(dtype)
    q, k, v = qkv.unbind(2)
    lengths = torch.tensor([70, 33])
    for given in (None, lengths):
        out, log_sum_exp = backend(name).partial(q, k, v, given)
        expected = exact(q, k, v, given)
        tolerance = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(out.double(), expected[0], atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(log_sum_exp.double(), expected[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [None, torch.tensor([0, 11, 5], device="meta")])
@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn"])
def test_the_kernels_of_gpus_are_called_as_they_want(
    undoubled: None, name: str, lengths: torch.Tensor | None
) -> None:
    """On the meta device, which knows their arguments and shapes."""
    q, k, v = (x.to("meta", torch.bfloat16) for x in _qkv())
    out, log_sum_exp = backend(name).partial(q[:, :7], k, v, lengths)
    assert out.shape == (3, 7, 4, 8)
    assert (log_sum_exp.shape, log_sum_exp.dtype) == ((3, 7, 4), torch.float32)
    assert backend(name)(q[:, :7], k, v, lengths).shape == (3, 7, 4, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [40, 300])
def test_torchs_own_choice_agrees_with_float64_on_a_cpu(dtype: torch.dtype, tokens: int) -> None:
    q, k, v = (x.to(dtype) for x in _qkv(tokens=tokens))
    lengths = torch.tensor([tokens, tokens // 2, 1])
    expected, _ = exact(q, k, v, lengths)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.003}[dtype]
    for name in ("sdpa", "math"):
        out = backend(name)(q, k, v, lengths)
        torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)


def test_on_a_cpu_long_rows_are_attended_to_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[torch.Tensor | None] = []
    true = torch.nn.functional.scaled_dot_product_attention

    def spy(*args: torch.Tensor, attn_mask: torch.Tensor | None) -> torch.Tensor:
        masks.append(attn_mask)
        return true(*args, attn_mask=attn_mask)

    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", spy)
    q, k, v = _qkv(tokens=300)
    backend("sdpa")(q, k, v, torch.tensor([300, 20, 256]))
    assert masks == [None] * 3
