"""The plan of where weights are: it fits, there is one wherever one is possible, and it says so."""

import pytest

from multimodal_gen.configs.arguments.engine_args import ResidencyChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.residency import (
    MODES,
    ComponentMemory,
    Moment,
    plan_residency,
)

GB = 10**9
FLUX = (
    ComponentMemory(name="text_encoder", size=GB // 4),
    ComponentMemory(
        name="text_encoder_2", size=9_500_000_000, blocks=(380_000_000,) * 24, evaluation_s=0.05
    ),
    ComponentMemory(
        name="transformer",
        size=23_800_000_000,
        blocks=(680_000_000,) * 19 + (280_000_000,) * 38,
        evaluations=28,
        evaluation_s=1.1,
    ),
    ComponentMemory(name="vae", size=170_000_000, evaluation_s=0.3),
)
MOMENTS = (
    Moment(frozenset({"text_encoder", "text_encoder_2"}), GB // 10),
    Moment(frozenset({"transformer", "vae"}), 2 * GB),
    Moment(frozenset({"vae"}), 3 * GB),
)


def test_everything_is_on_the_device_if_it_fits() -> None:
    plan = plan_residency(FLUX, MOMENTS, 40 * GB)
    assert {each.mode for each in plan.placements} == {"device"}
    assert plan.sentence == "all components on the device"
    assert plan.slowdown == 1


def test_the_sentence_names_what_is_where_and_how_much_slower_it_is() -> None:
    plan = plan_residency(FLUX, MOMENTS, 12 * GB)
    assert plan.sentence == (
        "text encoders on the host between phases, transformer streamed 38 of 57 blocks, "
        "about 1.3× slower"
    )


@pytest.mark.parametrize("choice", MODES)
@pytest.mark.parametrize("budget_gb", [3.2, 4, 6, 8, 12, 16, 24, 32, 48])
def test_a_plan_keeps_within_the_budget_at_each_moment(
    choice: ResidencyChoice, budget_gb: float
) -> None:
    budget = int(budget_gb * GB)
    try:
        plan = plan_residency(FLUX, MOMENTS, budget, choice=choice)
    except InvalidRequest:
        assert choice in ("device", "host")
        return
    assert plan.needed <= budget
    for component in FLUX:
        placement = plan[component.name]
        assert placement.mode in (*MODES[choice], "host")
        assert len(placement.streamed) <= len(component.blocks)


def test_more_memory_is_never_slower() -> None:
    slowdowns = [
        plan_residency(FLUX, MOMENTS, gb * GB // 2).slowdown for gb in (7, 10, 16, 24, 48, 96)
    ]
    assert slowdowns == sorted(slowdowns, reverse=True)


def test_there_is_a_plan_from_the_least_that_the_error_names() -> None:
    with pytest.raises(InvalidRequest, match=r"device_memory_gb=0\.5: must be at least") as raised:
        plan_residency(FLUX, MOMENTS, GB // 2)
    least = float(raised.value.message.split("at least ")[1].split()[0])
    plan = plan_residency(FLUX, MOMENTS, int(least * GB))
    assert len(plan["transformer"].streamed) == 57
    with pytest.raises(InvalidRequest):
        plan_residency(FLUX, MOMENTS, int((least - 0.02) * GB))


def test_a_choice_that_does_not_fit_is_told_what_would() -> None:
    with pytest.raises(InvalidRequest, match=r"residency='host': needs device_memory_gb=23\.98"):
        plan_residency(FLUX, MOMENTS, 8 * GB, choice="host")


def test_room_for_usual_requests_is_left_before_weights_are_kept() -> None:
    assert plan_residency(FLUX, MOMENTS, 4 * GB).room == 1
    small = plan_residency(FLUX, MOMENTS, 2 * GB)
    assert small.room == 1 / 4
    assert small.sentence.endswith("room for requests of 1/4 of the usual size")


def test_streamed_blocks_are_spread_evenly_and_the_first_one_stays() -> None:
    one = ComponentMemory(name="transformer", size=8 * GB, blocks=(GB,) * 8)
    plan = plan_residency([one], [Moment(frozenset({"transformer"}))], 6 * GB)
    assert plan["transformer"].streamed == (1, 3, 5, 7)


def test_without_room_for_two_blocks_each_is_copied_when_it_is_needed() -> None:
    one = ComponentMemory(name="transformer", size=8 * GB, blocks=(GB,) * 8)
    plan = plan_residency([one], [Moment(frozenset({"transformer"}))], GB)
    assert plan["transformer"].slots == 1
    assert plan.needed == GB


def test_of_two_experts_only_one_is_on_the_device_at_once() -> None:
    experts = [ComponentMemory(name=name, size=10 * GB) for name in ("expert", "expert_2")]
    moments = [Moment(frozenset({each.name})) for each in experts]
    plan = plan_residency(experts, moments, 12 * GB)
    assert {each.mode for each in plan.placements} == {"host"}
    assert plan.needed == 10 * GB


def test_a_faster_link_never_makes_a_plan_slower() -> None:
    slow, fast = (plan_residency(FLUX, MOMENTS, 8 * GB, link=link).slowdown for link in (6e9, 50e9))
    assert fast <= slow


PHASES = (Phase.ENCODE, Phase.DENOISE, Phase.DECODE)
IN_PHASES = [moment._replace(phase=phase) for moment, phase in zip(MOMENTS, PHASES, strict=True)]


def test_a_change_of_phase_takes_as_long_as_copying_what_it_needs() -> None:
    plan = plan_residency(FLUX, IN_PHASES, 12 * GB)
    seconds = {(each.before, each.after): each.seconds for each in plan.switches(link=GB)}
    resident = 23.8 - sum(FLUX[2].blocks[i] for i in plan["transformer"].streamed) / GB
    assert seconds[Phase.DENOISE, Phase.ENCODE] == pytest.approx(9.75)
    assert seconds[Phase.ENCODE, Phase.DENOISE] == pytest.approx(resident)
    assert seconds[Phase.DECODE, Phase.DENOISE] == pytest.approx(resident)


def test_nothing_is_copied_between_phases_if_all_fits() -> None:
    assert plan_residency(FLUX, IN_PHASES, 40 * GB).switches() == ()


def test_what_weights_leave_of_the_budget_is_for_requests() -> None:
    plan = plan_residency(FLUX, IN_PHASES, 40 * GB)
    weights = sum(each.size for each in FLUX)
    assert plan.free_in(Phase.DENOISE) == 40 * GB - weights
    streamed = plan_residency(FLUX, IN_PHASES, 12 * GB)
    assert 2 * GB <= streamed.free_in(Phase.DENOISE) < 3 * GB
