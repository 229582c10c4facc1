"""The attention backends agree, and none attends to padding."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from multimodal_gen.configs.attention import ATTENTION_BACKENDS
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.layers.attention import select_attention

GPU_KERNELS = [
    (SDPBackend.FLASH_ATTENTION, False),  # torch never chooses it with a mask
    (SDPBackend.EFFICIENT_ATTENTION, False),
    (SDPBackend.EFFICIENT_ATTENTION, True),
    (SDPBackend.CUDNN_ATTENTION, False),
    (SDPBackend.CUDNN_ATTENTION, True),
]


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
    torch.testing.assert_close(select_attention(name)(q, k, v), expected)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_padded_keys_change_nothing_whatever_they_hold(name: str) -> None:
    attention = select_attention(name)
    q, k, v = _qkv()
    lengths = torch.tensor([11, 5, 1])
    k[1, 5:], v[1, 5:], k[2, 1:], v[2, 1:] = 1e4, -1e4, 1e4, -1e4
    out = attention(q, k, v, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = attention(q[row, None], k[row, None, :length], v[row, None, :length])
        torch.testing.assert_close(out[row, None], alone)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_full_lengths_equal_none(name: str) -> None:
    attention = select_attention(name)
    q, k, v = _qkv()
    torch.testing.assert_close(attention(q, k, v, torch.full((3,), 11)), attention(q, k, v))


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_queries_and_keys_may_differ_in_number(name: str) -> None:
    q, k, v = _qkv()
    out = select_attention(name)(q[:, :4], k, v)
    torch.testing.assert_close(out, select_attention(name)(q, k, v)[:, :4])


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_the_result_has_the_dtype_of_the_values(name: str) -> None:
    q, k, v = (x.bfloat16() for x in _qkv())
    out = select_attention(name)(q, k, v)
    assert out.dtype == torch.bfloat16
    reference = select_attention("math")(q.float(), k.float(), v.float())
    torch.testing.assert_close(out.float(), reference, atol=0.03, rtol=0.03)


def test_auto_is_one_of_the_backends() -> None:
    assert select_attention("auto") in [select_attention(name) for name in ATTENTION_BACKENDS]


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"attention_backend='flash9'.*math, sdpa"):
        select_attention("flash9")


def _exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp by float64, row by row."""
    scores = torch.einsum("bqhd,bkhd->bqhk", q.double(), k.double()) / q.shape[-1] ** 0.5
    valid = torch.arange(k.shape[1]) < lengths[:, None, None, None]
    scores = scores.masked_fill(~valid, float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0)
    return torch.einsum("bqhk,bkhd->bqhd", weights, v.double()), scores.logsumexp(-1)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_the_log_sum_exp_comes_with_the_output(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v = (x.to(dtype) for x in _qkv())
    out, log_sum_exp = select_attention(name).partial(q[:, :7], k, v)
    expected = _exact(q[:, :7], k, v, torch.full((3,), 11))
    assert (out.dtype, log_sum_exp.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(out.double(), expected[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(log_sum_exp.double(), expected[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ATTENTION_BACKENDS)
def test_keys_of_which_none_is_valid_add_nothing(name: str) -> None:
    q, k, v = _qkv()
    lengths = torch.tensor([0, 11, 5])
    k[0], k[2, 5:] = 1e4, 1e4
    out, log_sum_exp = select_attention(name).partial(q, k, v, lengths)
    expected = _exact(q, k, v, lengths)
    assert not out[0].any()
    assert torch.isneginf(log_sum_exp[0]).all()
    torch.testing.assert_close(out.double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_sum_exp.double(), expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kernel", "masked"), GPU_KERNELS)
def test_the_kernels_of_gpus_are_called_as_they_want(
    monkeypatch: pytest.MonkeyPatch, kernel: SDPBackend, masked: bool
) -> None:
    """On the meta device, which knows their arguments and shapes."""
    monkeypatch.setattr(torch.ops.aten, "_fused_sdp_choice", lambda *_: kernel.value)
    lengths = torch.tensor([0, 11, 5], device="meta") if masked else None
    q, k, v = (x.to("meta", torch.bfloat16) for x in _qkv())
    out, log_sum_exp = select_attention("sdpa").partial(q[:, :7], k, v, lengths)
    assert out.shape == (3, 7, 4, 8)
    assert (log_sum_exp.shape, log_sum_exp.dtype) == ((3, 7, 4), torch.float32)
