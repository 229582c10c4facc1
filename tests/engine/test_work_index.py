"""Sums of the work before a job, against a plain list."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from multimodal_gen.scheduling.queue.work_index import Rank, WorkIndex


def test_sums_are_those_of_a_sorted_list_while_jobs_come_and_go() -> None:
    rng, index, plain = random.Random(3), WorkIndex(), dict[Rank, float]()
    for number in range(4000):
        if plain and rng.random() < 0.4:
            gone = rng.choice(list(plain))
            index.remove(gone)
            del plain[gone]
        rank = (-rng.randrange(3), rng.choice((1.0, 2.0, 3.5)), number)
        plain[rank] = rng.uniform(0.1, 5)
        index.add(rank, plain[rank])
        changed = rng.choice(list(plain))
        plain[changed] = rng.uniform(0.1, 5)
        index.change(changed, plain[changed])
        if number % 100 == 0:
            agree(index, plain, rng)
    for rank in list(plain):
        index.remove(rank)
    assert (len(index), index.total.seconds) == (0, pytest.approx(0))


def agree(index: WorkIndex, plain: dict[Rank, float], rng: random.Random) -> None:
    ranks = sorted(plain)
    sums = [0.0, *accumulate(plain[rank] for rank in ranks)]
    at = rng.randrange(len(ranks))
    assert index.before(ranks[at]).jobs == at
    assert index.before(ranks[at]).seconds == pytest.approx(sums[at])
    seconds = rng.uniform(0, 1.2 * sums[-1])
    done = index.within(seconds)
    assert done.jobs == sum(each <= seconds for each in sums) - 1
    assert done.seconds == pytest.approx(min(seconds, sums[-1]))
    assert len(index) == len(ranks)


def test_a_rank_that_is_not_there_cannot_leave() -> None:
    index = WorkIndex()
    index.add((1.0, 1), 2.0)
    with pytest.raises(LookupError):
        index.remove((1.0, 2))
