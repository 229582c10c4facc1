"""State of a running request: everything that changes from step to step, owned by the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.request import Req, Runner
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.controls.control_rows import ControlUse
from multimodal_gen.runtime.layers.lora import LoraUse, uses_at
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.upscaler import Enlargement
from multimodal_gen.runtime.models.vaes.shared_decoding import SharedDecoding
from multimodal_gen.runtime.stages.momentum import Momentum
from multimodal_gen.runtime.stages.prediction_cache import PredictionCache

Conditioning = dict[str, Tensor]
"""Denoiser inputs of one branch by name; each tensor has a leading dimension of 1."""

Estimate = Callable[[], Tensor]
"""Makes the estimate of x0 of one request, [1, ...]: only who looks at it has the work."""


class Draft:
    """An answer of a language model that is being written."""

    def __init__(self, ids: Tensor, cache: Any) -> None:
        self.ids = ids
        """[1, S]: instruction and prompt, then the answer so far."""
        self.cache = cache
        self.asked = ids.shape[1]
        self.text: str | None = None
        """The prompt that came of it."""

    @property
    def written(self) -> int:
        """Number of its tokens."""
        return self.ids.shape[1] - self.asked


class Magnitude(NamedTuple):
    """Largest absolute value at a place in a request's work."""

    place: str
    """Such as `step 3 of 20`."""
    values: Tensor
    """Float32 [n] on the device, of all requests that were there."""
    at: int
    """This request's entry."""


@dataclass(eq=False)
class RequestState:
    """The tensors of one request. Dropping the object frees them."""

    req: Req
    generator: torch.Generator
    """On the CPU, seeded by the request: gives the same noise on every device and rank."""
    pictures: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    """Input images and video of the request, by the names in messages/pictures.py: uint8 and
    read-only."""
    loras: tuple[LoraUse, ...] = ()
    """LoRA terms that its rows add to the pipeline's modules."""
    controls: tuple[ControlUse, ...] = ()
    """Controls that its pictures steer."""
    warnings: list[RequestWarning] = field(default_factory=list)
    """For its result; stages of the first phase may add to them."""
    draft: Draft | None = None
    """Its prompt as a language model has rewritten it so far."""
    revised_prompt: str | None = None
    """Its prompt, once a language model has rewritten it."""
    prompt_notes: list[str] = field(default_factory=list)
    """How its prompts were read, for its result."""
    prompt_tokens: int = 0
    """Tokens of its prompts, for its result; known on the rank that encodes."""
    second: RequestState | None = None
    """The next pass, if it is upscaled: it is begun once this one is decoded."""
    conditioning: dict[str, Conditioning] = field(default_factory=dict)
    """Conditioning by branch, in the order of the request's rows in a batch."""
    latents: Tensor | None = None
    """[1, ...] in the denoiser's layout."""
    solver: Solver | None = None
    runner: Runner = "eager"
    """Runner of its evaluations."""
    evaluation: int = 0
    """Number of entries of `solver.timesteps` done."""
    cache: PredictionCache | None = None
    """Its earlier predictions, if some are extrapolated from them."""
    branches: Sequence[tuple[str, ...]] = ()
    """Guidance branches that each of its evaluations combines; empty: all branches in all of
    them."""
    momentum: Momentum | None = None
    """Momentum of its guidance, if that has some."""
    first: int = 0
    """Its first evaluation: later than 0 if it starts from an image."""
    stepped: tuple[Tensor, Tensor] | None = None
    """Solver result of this evaluation, held until all requests of the batch have theirs."""
    history: tuple[Tensor, ...] = ()
    """Latents and guided prediction of the last evaluation, then those of the one before and so on:
    as many as its solver's steps use, if they are weighted sums."""
    kept: Tensor | None = None
    """Latents that such a solver keeps from one evaluation to the next besides, if it does."""
    after_step: list[Callable[[RequestState, Estimate], None]] = field(default_factory=list)
    """Callbacks after each evaluation."""
    preview: Tensor | None = None
    """[H, W, 3] uint8: newest preview, not sent yet."""
    magnitudes: list[Magnitude] = field(default_factory=list)
    """Largest values of its work so far, not checked yet: NaN or infinity means that it has
    failed."""
    chunks: list[Tensor] = field(default_factory=list)
    """Chunks decoded so far, each [F, H, W, 3] uint8."""
    audio: Tensor | None = None
    """Sound that goes with the chunks, float32 [channels, samples] of about -1 to 1."""
    audio_rate: int = 0
    """Samples of sound per second; 0 without."""
    decoded: int = 0
    """Units of decoding done: chunks, or turns of tiles."""
    carry: Any = None
    """VAE state after the last decoded chunk, needed for the next one."""
    shared: SharedDecoding | None = None
    """Its tiles or bands, from the first one on, if all ranks decode it."""
    clean: Tensor | None = None
    """Latents of a pass before, enlarged, that it starts from: [1, ...] as `latents`."""
    upsampler: LatentUpsampler | None = None
    """Set if its latents are enlarged for the next pass, instead of being decoded."""
    enlargement: Enlargement | None = None
    """Set if a model makes it of the pixels of the pass before, without evaluations."""

    @property
    def params(self) -> SamplingParams:
        return self.req.params

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the output, in pixels."""
        assert self.params.height is not None
        assert self.params.width is not None
        return self.params.height, self.params.width

    def revise(self, prompt: str) -> None:
        """Go on with another prompt."""
        self.draft, self.revised_prompt = None, prompt
        params = replace(self.req.params, prompt=prompt)
        self.req = msgspec.structs.replace(self.req, params=params)

    def branches_at(self, evaluation: int) -> tuple[str, ...]:
        """Guidance branches that this evaluation computes, in the order of `conditioning`. Known
        once the request is prepared, and the same whenever it is prepared again."""
        if self.cache is not None:
            return self.cache.plan[evaluation].computed
        return self.combined_at(evaluation)

    def combined_at(self, evaluation: int) -> tuple[str, ...]:
        """Guidance branches whose predictions this evaluation combines."""
        return self.branches[evaluation] if self.branches else tuple(self.conditioning)

    @property
    def extrapolated(self) -> int:
        """Number of its evaluations of this pass that are extrapolated."""
        plan = () if self.cache is None else self.cache.plan
        return sum(each.is_extrapolated for each in plan)

    def completed(self, computed: Tensor) -> Tensor:
        """Predictions that this evaluation combines, of those that it computes."""
        return computed if self.cache is None else self.cache.complete(self.evaluation, computed)

    def planned_rows(self, evaluation: int) -> int:
        """Rows of a batch that plans count this evaluation as: a control takes about half as much
        time and memory as the denoiser, for each of its rows."""
        rows = len(self.branches_at(evaluation))
        return rows + -(-rows * len(self.controls_at(evaluation)) // 2)

    @property
    def made(self) -> list[list[Tensor]]:
        """Arrays of its result, in the order in which they are sent, each in parts."""
        return [self.chunks] if self.audio is None else [self.chunks, [self.audio]]

    @property
    def is_begun(self) -> bool:
        """True for a later pass that has what it starts from."""
        begun = (self.pictures.get("image"), self.shared, self.clean)
        return any(each is not None for each in begun)

    @property
    def passes(self) -> list[RequestState]:
        """This pass and the later ones."""
        return [self, *([] if self.second is None else self.second.passes)]

    @property
    def loras_now(self) -> tuple[LoraUse, ...]:
        """LoRA terms at this evaluation; those at the first one before it."""
        return self.loras_at(self.evaluation)

    def loras_at(self, evaluation: int) -> tuple[LoraUse, ...]:
        """LoRA terms at an evaluation."""
        if not self.loras:
            return ()
        evaluations = 1 if self.solver is None else self.solver.num_evaluations
        return uses_at(self.loras, evaluation / evaluations)

    def controls_now(self, branch: str) -> tuple[tuple[ControlUse, str], ...]:
        """Controls of a guidance branch at this evaluation."""
        return tuple((use, branch) for use in self.controls_at(self.evaluation))

    def controls_at(self, evaluation: int) -> list[ControlUse]:
        """Controls that apply at an evaluation."""
        if not self.controls:
            return []
        solver, _ = self.running()
        done, total = evaluation - self.first, solver.num_evaluations - self.first
        return [use for use in self.controls if use.applies(done, total)]

    def running(self) -> tuple[Solver, Tensor]:
        """Solver and latents of a prepared request."""
        assert self.solver is not None
        assert self.latents is not None
        return self.solver, self.latents

    @property
    def evaluations_left(self) -> int:
        """Evaluations left of this pass."""
        solver, _ = self.running()
        return solver.num_evaluations - self.evaluation

    @property
    def steps_left(self) -> int:
        """Steps left of this pass; some solvers take several evaluations for one."""
        solver, _ = self.running()
        return -(-self.evaluations_left // solver.order)

    def measure(self, values: Tensor, place: str) -> None:
        """Note the largest absolute value for a later check, without waiting for the device."""
        largest = torch.linalg.vector_norm(values, math.inf, dtype=torch.float32)
        self.magnitudes.append(Magnitude(place, largest.view(1), 0))

    @classmethod
    def of(cls, req: Req, pictures: Sequence[np.ndarray[Any, Any]] = ()) -> RequestState:
        """Create the state. `pictures` are the images that the request lists, in that order."""
        assert req.params.seed is not None
        return cls(
            req=req,
            warnings=[*req.warnings],
            generator=torch.Generator("cpu").manual_seed(req.params.seed),
            pictures=dict(zip(req.pictures, pictures, strict=True)),
        )


def shapes_of(state: RequestState) -> str:
    """Format the size and the shapes of latents and conditioning: `64x64 4x8x8 text[77x768]`."""
    _, latents = state.running()
    branch = next(iter(state.conditioning.values()))
    told = (f"{name}[{_sizes(tensor)}]" for name, tensor in branch.items())
    return " ".join((f"{state.params.width}x{state.params.height}", _sizes(latents), *told))


def _sizes(tensor: Tensor) -> str:
    """Format the shape of a row [1, ...], such as 24x64."""
    return "x".join(map(str, tensor.shape[1:]))
