"""Keys share the queue and the engine, whatever one of them asks for. No engine is real here."""

from __future__ import annotations

import pytest
from dispatched import ANNE, BOB, Front, run
from fake_engine import settle

from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.request import Standing
from multimodal_gen.serving.dispatch import ticket
from multimodal_gen.serving.owner import Owner, Share

CAROL = Owner("carol")
EQUAL = {owner.name: Share() for owner in (ANNE, BOB, CAROL)}


async def order_of(front: Front) -> list[str]:
    """Prompts in the order in which an engine of one place gets them."""
    order = []
    while front.engine.alive:
        (prompt,) = front.engine.prompts
        order.append(prompt)
        front.engine.finish(prompt)
        await settle()
    return order


def test_high_priority_orders_ones_own_requests_only() -> None:
    async def test(front: Front) -> None:
        front.ask("running")
        for index in range(3):
            front.ask(f"anne {index}")
            front.ask(f"anne high {index}", priority="high")
        front.ask("bob 0", BOB, priority="low")
        front.ask("bob 1", BOB)
        assert await order_of(front) == [
            *("running", "bob 1", "anne high 0", "bob 0", "anne high 1", "anne high 2"),
            *("anne 0", "anne 1", "anne 2"),
        ]

    run(test, in_flight=1)


def test_the_right_to_priorities_puts_high_ones_before_other_owners() -> None:
    async def test(front: Front) -> None:
        front.ask("running")
        for index in range(2):
            front.ask(f"anne {index}")
            front.ask(f"anne high {index}", priority="high")
        front.ask("bob", BOB, priority="high")
        order = await order_of(front)
        assert order == ["running", "anne high 0", "anne high 1", "bob", "anne 0", "anne 1"]

    run(test, in_flight=1, shares={"anne": Share(priorities=True)})


def test_a_weight_gives_more_turns() -> None:
    async def test(front: Front) -> None:
        front.ask("running", CAROL)
        for index in range(8):
            front.ask(f"anne {index}")
            front.ask(f"bob {index}", BOB)
        first = (await order_of(front))[1:9]
        assert [prompt[:4] for prompt in first].count("anne") == 6

    run(test, in_flight=1, shares={"anne": Share(weight=3)})


def test_a_low_one_ages_past_later_high_ones_of_its_own_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(front: Front) -> None:
        front.ask("running")
        front.ask("low", priority="low")
        monkeypatch.setattr(ticket, "AGEING_S", 1e-9)
        front.ask("high", priority="high")
        assert await order_of(front) == ["running", "low", "high"]

    run(test, in_flight=1)


def test_the_engine_is_told_whose_a_request_is() -> None:
    async def test(front: Front) -> None:
        front.ask("a", BOB)
        (req,) = front.engine.alive.values()
        assert req.standing == Standing("bob", 2.0, priorities=True)

    run(test, shares={"bob": Share(weight=2, priorities=True)})


def fill(front: Front, owner: Owner) -> int:
    """How many requests of this owner are taken."""
    for count in range(1000):
        try:
            front.ask(f"{owner.name} {count}", owner)
        except QueueFull:
            return count
    raise AssertionError("no end")


def test_no_key_can_fill_the_queue() -> None:
    async def test(front: Front) -> None:
        assert [fill(front, owner) for owner in (ANNE, BOB, CAROL)] == [50, 25, 13]
        assert fill(front, BOB) == 0
        while len([prompt for prompt in front.engine.prompts if "anne" in prompt]) > 0:
            anne = next(prompt for prompt in front.engine.prompts if "anne" in prompt)
            front.engine.finish(anne)
            await settle()
        assert fill(front, BOB) > 0

    run(test, capacity=100, shares=EQUAL)


def test_a_weight_gives_more_of_the_places() -> None:
    async def test(front: Front) -> None:
        assert fill(front, ANNE) == 75
        assert fill(front, BOB) == 13

    run(test, capacity=100, shares={"anne": Share(weight=3), "bob": Share()})


def test_a_key_of_small_weight_gets_one_request_of_several_pictures_at_a_time() -> None:
    async def test(front: Front) -> None:
        front.ask("anne", ANNE, n=4)
        with pytest.raises(QueueFull):
            front.ask("anne again", ANNE)
        front.ask("bob", BOB)
        with pytest.raises(QueueFull, match="no room for 6 more"):
            front.ask("carol", CAROL, n=6)

    run(test, capacity=10, shares={"anne": Share(weight=0.01), "bob": Share(), "carol": Share()})


@pytest.mark.parametrize("shares", [{}, {"anne": Share()}])
def test_a_key_without_others_has_all_places(shares: dict[str, Share]) -> None:
    async def test(front: Front) -> None:
        assert fill(front, ANNE) == 100

    run(test, capacity=100, shares=shares)
