"""Components come to the device when they are held, and leave when others need the room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from multimodal_gen.runtime.models.denoiser import EagerDenoiser, StreamedDenoiser
from multimodal_gen.runtime.residency.blocks import blocks_of
from multimodal_gen.runtime.residency.bundle import Bundle
from multimodal_gen.runtime.residency.residency import Residency, memory_of
from multimodal_gen.scheduling.residency import Moment, plan_residency

CPU = torch.device("cpu")
WIDTH = 64


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x).tanh()


class Stack(nn.Module):
    """Blocks that are called in `order`."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.order = [*range(blocks)]
        self.fails_at: int | None = None

    def forward(self, x: Tensor, lora: Any = None) -> Tensor:
        x = self.first(x)
        for number in self.order:
            if number == self.fails_at:
                raise RuntimeError("out of memory")
            x = self.layers[number](x)
        return x


def addresses(module: nn.Module) -> set[int]:
    return {parameter.data_ptr() for parameter in module.parameters()}


def is_here(module: nn.Module, host: set[int]) -> bool:
    return addresses(module).isdisjoint(host)


@pytest.fixture
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {name: Stack(blocks) for name, blocks in (("encoder", 3), ("denoiser", 4), ("vae", 1))}
    return {name: module.requires_grad_(False) for name, module in made.items()}


def resided(modules: dict[str, nn.Module], share: float, choice: Any = "host") -> Residency:
    """With a budget of a share of all weights; each is needed alone."""
    sizes = [memory_of(name, module) for name, module in modules.items()]
    moments = [Moment(frozenset({name})) for name in modules]
    budget = int(share * sum(each.size for each in sizes))
    return Residency.of(modules, plan_residency(sizes, moments, budget, choice=choice), CPU)


def test_what_is_held_comes_and_what_takes_its_room_leaves(modules: dict[str, nn.Module]) -> None:
    host = {name: addresses(module) for name, module in modules.items()}
    residency = resided(modules, 0.5)
    residency.hold(["encoder"])
    assert is_here(modules["encoder"], host["encoder"])
    residency.hold(["denoiser"])
    assert is_here(modules["denoiser"], host["denoiser"])
    assert addresses(modules["encoder"]) == host["encoder"]


def test_what_was_used_last_stays_while_there_is_room() -> None:
    modules = {str(number): Stack(2).requires_grad_(False) for number in range(4)}
    host = {name: addresses(module) for name, module in modules.items()}
    residency = resided(modules, 0.3)
    assert residency.plan is not None
    residency.plan = replace(residency.plan, budget=2 * residency.plan.budget)
    for name in ("0", "1", "0", "2"):
        residency.hold([name])
    here = [name for name, module in modules.items() if is_here(module, host[name])]
    assert here == ["0", "2"]


def test_a_component_that_finds_no_memory_can_come_later(modules: dict[str, nn.Module]) -> None:
    host = addresses(modules["denoiser"])
    residency = resided(modules, 0.5)
    failing = mock.patch.object(torch, "empty", side_effect=torch.OutOfMemoryError)
    with failing, pytest.raises(torch.OutOfMemoryError):
        residency.hold(["denoiser"])
    assert addresses(modules["denoiser"]) == host
    residency.hold(["denoiser"])
    assert is_here(modules["denoiser"], host)


@pytest.fixture
def streamed() -> tuple[Stack, Callable[[Tensor], Tensor], Residency]:
    """A stack of eight blocks of which one half is streamed, and its runner."""
    torch.manual_seed(1)
    stack = Stack(8).requires_grad_(False)
    residency = resided({"denoiser": stack}, 0.7, "auto")
    assert residency.plan is not None
    assert 1 < len(residency.plan["denoiser"].streamed) < 8
    stream = residency.stream_of("denoiser")
    assert stream is not None
    runner = StreamedDenoiser(EagerDenoiser(stack), stream)
    residency.hold(["denoiser"])
    return stack, lambda x: runner({"x": x}), residency


def alone(stack: Stack, x: Tensor) -> Tensor:
    """What a stack of the same weights gives without a runner."""
    other = Stack(8)
    other.load_state_dict(stack.state_dict())
    other.order = stack.order
    result: Tensor = other(x)
    return result.detach()


def test_streamed_blocks_give_the_same_numbers(streamed: Any) -> None:
    stack, run, _ = streamed
    x = torch.randn(2, WIDTH)
    expected = alone(stack, x)
    for _ in range(3):
        assert torch.equal(run(x), expected)


def test_blocks_that_are_called_in_another_order_are_right_and_the_order_is_learned(
    streamed: Any,
) -> None:
    stack, run, residency = streamed
    stack.order = [6, 7, 5, 1, 0, 3]
    x = torch.randn(2, WIDTH)
    expected = alone(stack, x)
    assert torch.equal(run(x), expected)
    copied: list[int] = []
    place = Bundle.place

    def noted(bundle: Bundle, memory: Tensor) -> Any:
        copied.append(id(bundle))
        return place(bundle, memory)

    with mock.patch.object(Bundle, "place", noted):
        assert torch.equal(run(x), expected)
    units = {id(unit.bundle): unit.module for unit in residency.stream_of("denoiser").units}
    numbers = [[*stack.layers].index(units[each]) for each in copied]
    assert numbers == [number for number in stack.order if number in numbers]


def test_what_runs_between_evaluations_is_right_and_leaves_the_order(streamed: Any) -> None:
    stack, run, residency = streamed
    stream, x = residency.stream_of("denoiser"), torch.randn(2, WIDTH)
    expected = alone(stack, x)
    run(x)
    order = [*stream._order]
    last = stack.layers[-1]
    assert torch.equal(last(x), x + last.linear(x).tanh())
    assert torch.equal(run(x), expected)
    assert stream._order == order


def test_an_evaluation_after_a_failed_one_is_right(streamed: Any) -> None:
    stack, run, _ = streamed
    x = torch.randn(2, WIDTH)
    expected = alone(stack, x)
    stack.fails_at = 5
    with pytest.raises(RuntimeError):
        run(x)
    stack.fails_at = None
    for _ in range(2):
        assert torch.equal(run(x), expected)


def test_weights_of_any_layout_and_shared_ones_are_as_on_the_host() -> None:
    layer = nn.Module()
    layer.turned = nn.Parameter(torch.randn(3, 5).T, requires_grad=False)
    layer.shared = layer.turned
    layer.strided = nn.Parameter(torch.randn(4, 6)[:, ::2], requires_grad=False)
    layer.register_buffer("number", torch.tensor(7, dtype=torch.int64))
    layer.register_buffer("none", torch.empty(0))
    expected = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    bundle = Bundle([layer])
    for target, source in bundle.place(torch.empty(bundle.size, dtype=torch.uint8)):
        target.copy_(source)
    assert layer.shared is layer.turned
    assert layer.turned.stride() == (1, 5)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, expected[name])
    bundle.restore()
    assert layer.strided.stride() == (6, 2)


def test_blocks_of_library_modules_are_looked_for_inside_large_ones() -> None:
    outer = nn.Module()
    outer.stages = nn.ModuleList([Stack(6), Stack(6)])
    found = [module for (module,) in blocks_of(outer)]
    assert found == [block for stage in outer.stages for block in stage.layers]
