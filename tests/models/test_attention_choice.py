"""The table of attention backends: what `auto` and named backends are for each kind of call."""

import sys
from collections.abc import Iterator
from itertools import product

import attention_kernels
import pytest
import torch
from attention_kernels import exact

from multimodal_gen.benchmarks.attention.__main__ import rows
from multimodal_gen.benchmarks.attention.trial import Timed, timed
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.attention.attention import backend, chosen, serves
from multimodal_gen.runtime.layers.attention.sites import Site
from multimodal_gen.runtime.layers.attention.table import TABLE, TableRow


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels, of which some need to be installed."""
    attention_kernels.install(monkeypatch)


def _kinds() -> Iterator[Site]:
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    majors = (None, 7, 8, 9, 10, 12)
    for kind in product(majors, dtypes, (4, 64, 72, 128, 256, 512), (False, True)):
        yield Site(*kind)


def test_each_row_of_the_table_names_a_backend_that_can_serve_it() -> None:
    for choice in TABLE:
        for kind in product(choice.majors, choice.dtypes, choice.widths, (choice.lengths,)):
            if choice.covers(Site(*kind)):
                assert serves(choice.backend, Site(*kind)), (choice, kind)


def test_the_table_names_a_backend_for_every_kind_of_call(kernels: None) -> None:
    print(f"\n{'capability':>10} {'dtype':>9} {'width':>5} lengths  backend")
    for site in _kinds():
        name = chosen(site)
        capability = "none" if site.major is None else f"{site.major}.x"
        dtype = str(site.dtype).removeprefix("torch.")
        print(f"{capability:>10} {dtype:>9} {site.width:5} {site.lengths!s:7}  {name}")
        assert serves(name, site)
        assert (name == "sdpa") == (site.major is None or site.width in (4, 512) or _odd(site))


def _odd(site: Site) -> bool:
    return site.major == 7 and site.dtype == torch.bfloat16


def test_no_row_of_the_table_is_hidden_by_those_before_it() -> None:
    used = {id(_row(site, installed)) for site in _kinds() for installed in (False, True)}
    assert [choice for choice in TABLE if id(choice) not in used] == []


def _row(site: Site, installed: bool) -> object:
    rows = (each for each in TABLE if each.covers(site) and serves(each.backend, site))
    return next((each for each in rows if installed or each.backend != "fa3"), None)


def test_rows_of_unlike_length_need_no_mask_on_gpus() -> None:
    """cuDNN's kernel alone needs one."""
    named = {chosen(site) for site in _kinds() if site.lengths and site.major is not None}
    assert "cudnn" not in named


@pytest.mark.parametrize("major", [9, 10])
def test_a_named_backend_leaves_what_it_cannot_serve_to_the_table(
    kernels: None, monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 0))
    attention = select_attention("flash", torch.device("cuda"))
    q, k, v = torch.randn(3, 2, 9, 4, 16).unbind()
    for dtype, name in ((torch.bfloat16, "flash"), (torch.float32, "efficient")):
        given = (q.to(dtype), k.to(dtype), v.to(dtype))
        assert attention._for(given[0], None) is backend(name)
        out = attention(*given).double()
        torch.testing.assert_close(out, exact(*given)[0], atol=0.02, rtol=0.02)


def test_flash_attention_3_is_used_where_it_is_installed(
    kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(9, torch.bfloat16, 128, True)
    assert chosen(site) == "fa3"
    monkeypatch.delitem(sys.modules, "fa3_fwd_interface")
    assert chosen(site) == "flash"
    assert chosen(site._replace(lengths=False)) == "cudnn"


def test_a_backend_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.raises(InvalidRequest, match=r"'fa3': .*pip install 'multimodal-gen\[fa3\]'"):
        select_attention("fa3", torch.device("cuda"))


@pytest.mark.parametrize(
    ("name", "needed"), [("fa3", "9.x"), ("flash", "8.0 or later"), ("efficient", "7.0 or later")]
)
def test_a_backend_of_gpus_is_refused_elsewhere(name: str, needed: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}': needs an NVIDIA GPU .*{needed}.*cpu"):
        select_attention(name)


def test_the_benchmark_prints_rows_of_the_table() -> None:
    def of(width: int, **seconds: float) -> Timed:
        return Timed(Site(9, torch.bfloat16, width, False), seconds)

    found = [of(64, fa3=1, flash=2), of(128, fa3=1, flash=2), of(256, flash=1, cudnn=2)]
    printed = [eval(row.rstrip(","), {"TableRow": TableRow, "torch": torch}) for row in rows(found)]
    assert printed == [
        TableRow((9,), (torch.bfloat16,), (64, 128), False, "fa3"),
        TableRow((9,), (torch.bfloat16,), (64, 128), False, "flash"),
        TableRow((9,), (torch.bfloat16,), (256, 256), False, "flash"),
    ]


def test_the_benchmark_measures_what_can_serve_a_call() -> None:
    site = Site(None, torch.float32, 8, True)
    found = timed(site, torch.device("cpu"), (16, 2), repeats=1)
    assert set(found.seconds) == {"sdpa", "math"}
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_the_choice_is_no_break_in_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    attention = select_attention(device=torch.device("cuda"))
    lengths = torch.tensor([7, 11], dtype=torch.int32, device="meta")

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        return attention(*qkv.unbind(2), lengths)

    compiled = torch.compile(attend, backend="eager", fullgraph=True, dynamic=True)
    for tokens in (11, 13):
        qkv = torch.empty(2, tokens, 3, 4, 64, dtype=torch.bfloat16, device="meta")
        assert compiled(qkv).shape == (2, tokens, 4, 64)
