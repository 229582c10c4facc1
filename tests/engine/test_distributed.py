"""Rows and sequences shared by 2 and 4 ranks; the checks themselves are in rank_checks."""

import json

import pytest
import torch
from native import attend
from rank_checks import CHECKS
from rank_processes import run_ranks

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import deal, gather_rows
from multimodal_gen.runtime.distributed.sequence import make_sequence_parallel
from multimodal_gen.runtime.layers.attention import select_attention

Results = list[dict[str, str | None]]


@pytest.fixture(scope="module", params=[2, 4], ids=["2 ranks", "4 ranks"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every check said, one dictionary a rank. The ranks are started once for all checks."""
    store = tmp_path_factory.mktemp("store") / "ranks"
    return [json.loads(said) for said in run_ranks("rank_checks.py", request.param, store)]


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_ranks_agree_that(check: str, results: Results) -> None:
    said = {rank: result.get(check, "not reached") for rank, result in enumerate(results)}
    failures = {rank: text for rank, text in said.items() if text is not None}
    assert not failures, "\n".join(f"rank {rank}: {text}" for rank, text in failures.items())


@pytest.mark.parametrize("rows", range(7))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_rows_are_dealt_evenly_and_each_once(rows: int, size: int) -> None:
    shares = deal(rows, size)
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_rank_needs_no_process_group() -> None:
    mesh = Mesh.create(0)
    assert mesh == Mesh()
    x = torch.randn(2, 5, 3, 4)
    attention = select_attention("sdpa")
    sequence = make_sequence_parallel(mesh, attention)
    assert gather_rows(x, 2, mesh) is x
    assert sequence.gather(sequence.shard(x), 5) is x
    assert torch.equal(attend(sequence, (x, x, x), (5,)), attention(x, x, x))


def test_a_rank_outside_the_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 4 is not on a mesh of 2 x 1 x 2 x 1"):
        Mesh.create(4, cfg=2, ulysses=2)
