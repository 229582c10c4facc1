"""The evaluations in which a request is guided."""

from __future__ import annotations

from multimodal_gen.runtime.stages.request_state import RequestState


def combined_branches(state: RequestState, *, flow: bool) -> list[tuple[str, ...]]:
    """Guidance branches that each evaluation combines; empty: all, in all of them. `flow`: whether
    the model predicts one.

    Guidance applies to the steps from `guidance_start` to `guidance_stop`, rounded down to whole
    ones (Kynkäänniemi et al. 2024, arXiv:2404.07724). The others have the positive branch only;
    those of `zero_init_steps` have none.
    """
    branches, params = tuple(state.conditioning), state.params
    zero_steps = 0
    if params.guidance_method == "cfg_zero":
        zero_steps = int(flow) if params.zero_init_steps is None else params.zero_init_steps
    always = params.guidance_start == 0 and params.guidance_stop == 1 and not zero_steps
    if len(branches) == 1 or always:
        return []
    solver, _ = state.running()
    steps = -(-(solver.num_evaluations - state.first) // solver.order)
    start, stop = int(params.guidance_start * steps), int(params.guidance_stop * steps)
    combined: list[tuple[str, ...]] = []
    for evaluation in range(solver.num_evaluations):
        step = (evaluation - state.first) // solver.order
        if step < zero_steps:
            combined.append(())
        else:
            combined.append(branches if start <= step < stop else branches[:1])
    return combined
