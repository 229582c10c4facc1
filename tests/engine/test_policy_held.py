"""Requests that wait for something the policy knows nothing of."""

from __future__ import annotations

from policy_simulation import cost_model, request

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.policy import Policy


def held(*names: str, deadline_s: float | None = None) -> Policy:
    policy = Policy(cost_model(), max_batch=8, max_queue=100)
    for name in names:
        policy.submit(request(name, deadline_s=deadline_s), 0.0, held=True)
    return policy


def test_a_held_request_does_not_run_before_it_is_released() -> None:
    policy = held("a")
    assert policy.next(0.0) is None
    assert policy.waiting == 1
    policy.release("a")
    work = policy.next(1.0)
    assert work is not None
    assert (work.phase, work.ids) == (Phase.ENCODE, ("a",))


def test_a_held_request_holds_up_nobody() -> None:
    policy = held("a")
    policy.submit(request("b"), 0.0)
    work = policy.next(0.0)
    assert work is not None
    assert work.ids == ("b",)


def test_a_held_request_can_be_removed_and_expires() -> None:
    policy = held("a", "b", deadline_s=60)
    assert policy.remove("a")
    assert policy.expired(60.0) == ["b"]
    assert policy.waiting == 0


def test_a_held_request_whose_deadline_comes_near_stays_held() -> None:
    policy = held("a", deadline_s=60)
    assert policy.next(59.9) is None
    policy.release("a")
    assert policy.next(59.9) is not None
