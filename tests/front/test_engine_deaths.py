"""What becomes of requests whose engine dies. No engine is real here."""

from __future__ import annotations

import pytest
from dispatched import BOB, Front, error_of, run
from fake_engine import settle

from multimodal_gen.errors import EngineDied, EngineNotReady
from multimodal_gen.serving.dispatch import dispatcher
from multimodal_gen.serving.dispatch.ticket import CLEAR_S, CLEAR_STEPS, MAX_DEATHS


def test_what_an_engine_had_when_it_died_goes_to_the_next_unchanged() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", n=2)
        sent = dict(front.engine.alive)
        front.engine.step("a", 7)
        await settle()
        await front.die()
        assert not task.done
        assert task.progress.step == 0
        front.up()
        assert set(front.engine.alive) <= set(sent)
        while front.engine.alive:
            (request_id, req) = next(iter(front.engine.alive.items()))
            assert req == sent[request_id]
            front.engine.finish("a")
            await settle()
        assert [output.seed for output in await task.wait()] == [5, 6]

    run(test)


def test_a_replay_is_run_as_the_engine_that_died_ran_it() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a")
        front.engine.step("a", 1, runner="compiled")
        await settle()
        await front.die()
        front.up()
        (req,) = front.engine.alive.values()
        assert req.runner == "compiled"
        front.engine.finish("a")
        await task.wait()

    run(test)


def test_requests_are_taken_while_an_engine_is_replaced_but_not_when_that_fails() -> None:
    async def test(front: Front) -> None:
        await front.die()
        task = front.ask("meanwhile")
        assert front.service.health().phase == "restarting"
        next(front.service.fleet.engines).engine_failed(
            EngineDied("rank 0 was killed"), for_good=False
        )
        with pytest.raises(EngineNotReady, match="rank 0 was killed"):
            front.ask("later")
        front.up()
        assert front.service.health().restarts == 1
        front.engine.finish("meanwhile")
        await task.wait()

    run(test)


async def work_off(front: Front, poison: str) -> int:
    """Finish what the engine has, in turn, but for the poison, which ends it. Returns how many
    engines that took."""
    engines = 0
    while front.engine.alive:
        prompt = front.engine.prompts[0]
        if poison in front.engine.prompts:
            prompt = poison
            engines += 1
            await front.replace()
        else:
            front.engine.finish(prompt)
        await settle()
    return engines


@pytest.mark.parametrize("heard", [(4, 4), (4, 2), (0, 4), (4, 0)])
def test_what_kills_the_engine_again_alone_ends_whichever_steps_were_heard(
    heard: tuple[int, int],
) -> None:
    async def test(front: Front) -> None:
        tasks = {prompt: front.ask(prompt) for prompt in ("a", "poison", "b")}
        for prompt in tasks:
            front.engine.step(prompt, heard[0])
        await settle()
        await front.replace()
        later = front.ask("later")
        while front.engine.prompts != ["poison"]:
            assert len(front.engine.prompts) == 1, "suspects fly without neighbours"
            front.engine.finish(front.engine.prompts[0])
            await settle()
        front.engine.step("poison", heard[1])
        await settle()
        await front.replace()
        error = await error_of(tasks["poison"])
        assert isinstance(error, EngineDied)
        assert "killed the engine twice, the second time alone" in str(error)
        assert tasks["poison"].requests[0].id in str(error)
        assert await work_off(front, "poison") == 0
        for task in (tasks["a"], tasks["b"], later):
            await task.wait()
        assert front.service.health().restarts == 2

    run(test)


@pytest.mark.parametrize("neighbours", [0, 20])
def test_poison_costs_two_engines_however_many_neighbours_it_has(neighbours: int) -> None:
    async def test(front: Front) -> None:
        tasks = [front.ask(str(index)) for index in range(neighbours)]
        poison = front.ask("poison")
        assert await work_off(front, "poison") == 2
        assert isinstance(await error_of(poison), EngineDied)
        for task in tasks:
            await task.wait()

    run(test)


def test_a_suspect_that_gets_well_past_the_step_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(dispatcher.time, "monotonic", lambda: clock[0])

    async def test(front: Front) -> None:
        task = front.ask("a", num_inference_steps=200)
        for step in range(0, 5 * MAX_DEATHS, 5):
            front.engine.step("a", step)
            await settle()
            await front.replace()
            front.ask(f"neighbour {step}")
            front.engine.step("a", step + 1)
            await settle()
            clock[0] += CLEAR_S
            front.engine.step("a", step + CLEAR_STEPS - 1)
            await settle()
            assert front.engine.prompts == ["a"], "not far enough to be told from the last time"
            front.engine.step("a", step + CLEAR_STEPS)
            await settle()
            assert front.engine.prompts == ["a", f"neighbour {step}"]
            front.engine.finish(f"neighbour {step}")
            await settle()
        front.engine.finish("a")
        await task.wait()

    run(test)


def test_a_request_is_not_replayed_for_ever() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", BOB)
        for _ in range(MAX_DEATHS):
            await front.replace()
        assert isinstance(await error_of(task), EngineDied)

    run(test)


def test_what_never_ran_is_no_suspect() -> None:
    async def test(front: Front) -> None:
        for prompt in ("a", "b"):
            front.ask(prompt)
            front.engine.step(prompt, 0, position=3)
        await settle()
        await front.replace()
        assert front.engine.prompts == ["a", "b"]

    run(test)
