"""Owners take turns in proportion to their weights, whatever happened before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from multimodal_gen.scheduling.turns import Turns


def served(turns: Turns, owners: Mapping[str, float], amount: float) -> Counter[str]:
    """What each received of this amount, where every turn of an owner takes so long."""
    received: Counter[str] = Counter()
    while received.total() < amount:
        owner = min(owners, key=turns.account)
        turns.begin(owner)
        turns.charge(owner, owners[owner])
        received[owner] += owners[owner]  # type: ignore[assignment]
    return received


def test_owners_receive_the_same_however_long_their_turns_take() -> None:
    turns = Turns()
    for owner in ("anne", "bob"):
        turns.enter(owner, 1)
    received = served(turns, {"anne": 10, "bob": 1}, 1000)
    assert received["anne"] == pytest.approx(received["bob"], abs=10)


def test_weights_divide_what_there_is() -> None:
    turns = Turns()
    turns.enter("anne", 3)
    turns.enter("bob", 1)
    received = served(turns, {"anne": 1, "bob": 1}, 1000)
    assert received["anne"] == pytest.approx(750, abs=2)
    assert (turns.slowdown("anne"), turns.slowdown("bob")) == (4 / 3, 4)


def test_who_was_away_has_saved_no_turns_and_who_was_alone_owes_none() -> None:
    turns = Turns()
    turns.enter("anne", 1)
    served(turns, {"anne": 1}, 1000)
    turns.enter("bob", 1)
    received = served(turns, {"anne": 1, "bob": 1}, 100)
    assert received["anne"] == pytest.approx(50, abs=1)
    turns.leave("bob")
    served(turns, {"anne": 1}, 1000)
    turns.enter("bob", 1)
    received = served(turns, {"anne": 1, "bob": 1}, 100)
    assert received["bob"] == pytest.approx(50, abs=1)


def test_a_newcomer_is_next() -> None:
    turns = Turns()
    turns.enter("anne", 1)
    served(turns, {"anne": 5}, 20)
    turns.enter("bob", 1)
    assert turns.account("bob") < turns.account("anne")


def test_work_that_was_not_done_is_taken_back() -> None:
    turns = Turns()
    turns.enter("anne", 2)
    turns.charge("anne", 8)
    turns.charge("anne", -4)
    assert turns.account("anne") == 2
    turns.leave("anne")
    turns.charge("anne", 5)
    assert turns.account("anne") == 0
