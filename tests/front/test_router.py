"""Which engine a request goes to, and when it waits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from no_model import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.request import Req
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.fleet.router import Router
from multimodal_gen.scheduling.fleet.unloading import LoadedModel, models_to_unload

COSTS = EvaluationCosts(((100, 0.1), (10_000, 10.0)))
"""A millisecond a token."""
_ids = (f"r{number}" for number in itertools.count())


def request(**fields: Any) -> RoutedRequest:
    return RoutedRequest(
        **{"id": next(_ids), "model": "flux", "tokens": 100, "evaluations": 10, **fields}
    )


def short(**fields: Any) -> RoutedRequest:
    """A second of work, in evaluations of 0.1 s."""
    return request(**fields)


def video(**fields: Any) -> RoutedRequest:
    """150 s of work, in evaluations of 3 s."""
    return request(tokens=3000, evaluations=50, **fields)


def router(*names: str, most: int = 4) -> Router:
    made = Router()
    for name in names:
        made.add(name, "flux", most=most, state="ready")
        made.learn(name, COSTS)
    return made


def send(router: Router, asked: RoutedRequest, now: float = 0.0) -> str | None:
    """Do as a front does: choose, and send there."""
    if (name := router.choose(asked, now)) is not None:
        router.sent(asked, name, now)
    return name


def test_equal_requests_are_spread_evenly() -> None:
    fleet = router("a", "b", "c")
    assert [send(fleet, short()) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_work_that_would_be_overtaken_does_not_count() -> None:
    fleet = router("a", "b")
    fleet.sent(request(tokens=900, evaluations=100), "a", 0)  # 90 s, but evaluations of 0.9 s
    for _ in range(2):
        fleet.sent(short(), "b", 0)
    assert fleet.choose(short(), 0) == "a"


def test_a_higher_priority_counts_only_its_equals() -> None:
    fleet = router("a", "b")
    for _ in range(3):
        fleet.sent(short(), "a", 0)
    fleet.sent(request(evaluations=9, level=2), "b", 0)
    assert fleet.choose(short(level=2), 0) == "a"
    assert fleet.choose(short(), 0) == "b"


def test_a_request_near_its_deadline_counts_as_one_of_a_higher_priority() -> None:
    fleet = router("a", "b")
    for _ in range(3):
        fleet.sent(short(), "a", 0)
    fleet.sent(request(evaluations=9, level=2), "b", 0)
    assert fleet.choose(short(deadline=1.5), 0) == "a"
    assert fleet.choose(short(deadline=60.0), 0) == "b"


def test_other_owners_count_for_no_more_than_their_turns() -> None:
    fleet = router("a", "b")
    for _ in range(3):
        fleet.sent(request(evaluations=9, owner="crowd"), "a", 0)
    for _ in range(2):
        fleet.sent(short(owner="me", evaluations=8), "b", 0)
    assert fleet.choose(short(owner="me"), 0) == "a"


def test_progress_counts() -> None:
    fleet = router("a", "b")
    first, second = short(), short()
    fleet.sent(first, "a", 0)
    fleet.sent(second, "b", 0)
    fleet.progressed(second.id, 2, 1.0)
    assert fleet.seconds("flux") == pytest.approx(1.2)
    assert fleet.choose(short(), 1.0) == "b"


def test_a_request_waits_when_all_engines_are_full_or_not_ready() -> None:
    fleet = router("a", "b", most=1)
    fleet.add("c", "flux", most=1)
    held = [short(), short()]
    assert {send(fleet, asked) for asked in held} == {"a", "b"}
    assert send(fleet, short()) is None
    fleet.ended(held[0].id)
    assert send(fleet, short()) == "a"
    fleet.set_state("c", "ready")
    assert send(fleet, short()) == "c"


def test_engines_of_other_models_loading_and_draining_are_not_chosen() -> None:
    fleet = router("a", "b")
    fleet.add("other", "wan", most=4, state="ready")
    fleet.set_state("a", "draining")
    assert [send(fleet, short()) for _ in range(4)] == ["b"] * 4
    assert fleet.choose(short(model="unknown"), 0) is None


def test_a_lost_engine_takes_its_requests_with_it() -> None:
    fleet = router("a", "b")
    asked = short()
    fleet.sent(asked, "a", 0)
    fleet.remove("a")
    assert fleet.seconds("flux") == 0
    fleet.ended(asked.id)
    fleet.progressed(asked.id, 1, 0)
    assert fleet.choose(asked, 0) == "b"


def test_faster_engines_get_more() -> None:
    fleet = router("slow", "fast")
    fleet.learn("fast", EvaluationCosts(((100, 0.05), (10_000, 5.0))))
    chosen = [send(fleet, request(evaluations=n)) for n in (10, 11, 12)]
    assert chosen.count("fast") == 2


def test_work_that_waits_is_predicted_though_no_engine_is_left() -> None:
    fleet = router("a")
    first, second = short(), video()
    fleet.waits(first)
    fleet.waits(second)
    assert fleet.seconds_waiting("flux") == pytest.approx(1 + 150)
    fleet.sent(first, "a", 0)
    assert fleet.seconds_waiting("flux") == pytest.approx(150)
    assert fleet.line(second) != fleet.line(first)
    fleet.remove("a")
    assert fleet.seconds_waiting("flux") == pytest.approx(150)
    assert fleet.line(second) != fleet.line(first)
    fleet.ended(second.id)
    assert fleet.seconds_waiting("flux") == 0


# -- what an engine holds


def test_an_engine_that_holds_the_lora_is_preferred_within_bounds() -> None:
    fleet = router("a", "b", most=100)
    loras = frozenset({"pixel-art"})
    first = short(loras=loras)
    fleet.sent(first, "b", 0)
    fleet.ended(first.id)
    assert fleet.choose(short(), 0) == "a"
    chosen = [send(fleet, short(loras=loras)) for _ in range(2)]
    assert chosen == ["b", "a"], "a LoRA is not worth a queue"


def test_an_engine_that_has_encoded_the_prompt_is_preferred() -> None:
    fleet = router("a", "b")
    first = short(prompt="a red heart")
    fleet.sent(first, "b", 0)
    fleet.ended(first.id)
    assert fleet.choose(short(prompt="a red heart"), 0) == "b"
    assert fleet.choose(short(prompt="a blue heart"), 0) == "a"


# -- long evaluations


def test_one_engine_is_left_for_short_jobs_while_there_are_any() -> None:
    fleet = router("a", "b", "c")
    fleet.sent(short(), "a", 0)
    videos = {send(fleet, video()) for _ in range(6)}
    assert videos == {"b", "c"}
    assert fleet.choose(short(), 0) == "a"


def test_long_jobs_use_all_engines_where_nothing_else_does() -> None:
    fleet = router("a", "b")
    assert {send(fleet, video()) for _ in range(2)} == {"a", "b"}


def test_long_and_short_jobs_wait_in_lines_of_their_own() -> None:
    fleet = router("a")
    assert fleet.line(short()) == fleet.line(short())
    assert fleet.line(short()) != fleet.line(video())
    assert fleet.line(short()) != fleet.line(short(suspect=True))
    assert fleet.line(short()) != fleet.line(short(model="wan"))


# -- suspects


def test_each_suspect_has_an_engine_to_itself_and_others_go_on() -> None:
    fleet = router("a", "b", "c")
    suspects = [short(suspect=True), short(suspect=True)]
    assert [send(fleet, asked) for asked in suspects] == ["a", "b"]
    assert [send(fleet, short()) for _ in range(4)] == ["c"] * 4
    assert send(fleet, short()) is None
    fleet.cleared(suspects[0].id)
    assert send(fleet, short()) == "a"


def test_an_engine_is_emptied_for_a_suspect_that_waits() -> None:
    fleet = router("a", "b")
    first, second = short(), video()
    fleet.sent(first, "a", 0)
    fleet.sent(second, "b", 0)
    suspect = short(suspect=True)
    assert send(fleet, suspect) is None
    assert send(fleet, suspect) is None
    assert [send(fleet, short()) for _ in range(2)] == ["b", "b"]
    fleet.ended(first.id)
    assert send(fleet, suspect) == "a"


def test_an_engine_is_no_longer_emptied_for_a_suspect_that_left() -> None:
    fleet = router("a")
    fleet.sent(short(), "a", 0)
    suspect = short(suspect=True)
    assert send(fleet, suspect) is None
    assert send(fleet, short()) is None
    fleet.ended(suspect.id)
    assert send(fleet, short()) == "a"


def test_a_suspect_does_not_stop_an_engine_that_runs_one_that_was_cleared() -> None:
    fleet = router("a")
    cleared = video(suspect=True)
    assert send(fleet, cleared) == "a"
    fleet.cleared(cleared.id)
    assert send(fleet, short(suspect=True)) is None
    assert send(fleet, short()) == "a"


# -- models in memory


def loaded(*, busy: str = "") -> list[LoadedModel]:
    return [
        LoadedModel(name, 10, last_used, busy=name == busy)
        for name, last_used in (("flux", 3.0), ("wan", 1.0), ("sdxl", 2.0))
    ]


def test_the_least_recently_used_models_make_room() -> None:
    assert models_to_unload(loaded(), 5, budget_bytes=35) == []
    assert models_to_unload(loaded(), 10, budget_bytes=35) == ["wan"]
    assert models_to_unload(loaded(), 20, budget_bytes=35) == ["wan", "sdxl"]


def test_busy_models_stay() -> None:
    assert models_to_unload(loaded(busy="wan"), 10, budget_bytes=35) == ["sdxl"]
    assert models_to_unload(loaded(busy="wan"), 30, budget_bytes=35) is None


# -- description of a request


def test_what_is_routed_follows_from_the_parameters() -> None:
    params = SamplingParams(
        prompt="a red heart", width=64, height=32, num_inference_steps=8, priority="high"
    )
    found = RoutedRequest.of(Req(id="r", params=params), MODEL, deadline=5.0)
    frames = 64 * 32 // MODEL.size_multiple**2
    assert (found.tokens, found.evaluations, found.level) == (frames, 8, 2)
    assert (found.model, found.deadline) == (MODEL.name, 5.0)
