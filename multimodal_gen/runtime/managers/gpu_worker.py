"""One rank's device: owns the pipeline and the state of every admitted request, and carries out
plans."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from multimodal_gen.errors import (
    GenerationFailed,
    MultimodalGenError,
    OutOfMemory,
)
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import (
    Phase,
    Plan,
    Prepared,
    RankLoaded,
    Work,
)
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.distributed.link_store import Store
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.enhancer.enhancer import ENHANCER
from multimodal_gen.runtime.layers.quantized.storage import count_numbers
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.managers.adapter_loader import AdapterLoader
from multimodal_gen.runtime.managers.graph_maker import GraphMaker
from multimodal_gen.runtime.managers.plan_outcome import PlanOutcome
from multimodal_gen.runtime.managers.prepared_work import prepared_of
from multimodal_gen.runtime.managers.rank_device import (
    PeakMemory,
    agree_on_memory,
    choose_device,
    choose_dtype,
    describe_device,
    free_bytes,
    give_back_memory,
    is_out_of_memory,
    keep_precision,
    memory_of,
)
from multimodal_gen.runtime.managers.rank_group import join_ranks
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.pipelines.sharing import agreed_parallel
from multimodal_gen.runtime.stages.decode import decode_units
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.scheduling.working_memory import GRAPH_BYTES, has_room_for_graphs

log = logging.getLogger(__name__)


class GPUWorker:
    """Carries out plans on one device. All ranks get the same plans in the same order."""

    def __init__(
        self, pipeline: ComposedPipeline, adapters: AdapterLoader | None = None, sharing: str = ""
    ) -> None:
        """`sharing`: how the ranks share an evaluation, for operators."""
        self.pipeline = pipeline
        self.adapters = adapters
        self.graphs: GraphMaker | None = None
        self._sharing = sharing
        self.device = pipeline.context.device
        self.rank = pipeline.context.mesh.rank
        self.states: dict[str, RequestState] = {}
        self.captures = False
        """True if it has graphs of evaluations, and memory for them."""
        self._faulted = False
        self._adapter_bytes = 0 if adapters is None else adapters.expected_bytes
        self._most_adapter_bytes = None if adapters is None else adapters.most_bytes

    @classmethod
    def load(
        cls,
        args: RankArgs,
        report: Callable[[LoadingProgress], None] = lambda progress: None,
        open_store: Callable[[], Store] | None = None,
    ) -> GPUWorker:
        """Join the other ranks, in a store of the launch's own, and load. Raises InvalidCheckpoint,
        InvalidRequest."""
        engine, folder = args.engine, Path(args.model_folder)
        enhancer = engine.prompt_enhancer
        device = choose_device(engine, args.place)
        dtype = choose_dtype(engine, device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if engine.num_gpus > 1:
            assert open_store is not None
            join_ranks(args, open_store(), device, dtype)
        keep_precision(dtype)
        file = None if args.model_file is None else Path(args.model_file)
        files = {name: Path(own) for name, own in args.component_files.items()}
        checkpoint = Checkpoint.open(folder, file, files, engine.quantization)
        choice = agreed_parallel(args, checkpoint, device, dtype)
        mesh = Mesh.create(args.rank, **asdict(choice.config))
        pipeline = load_pipeline(
            folder,
            device=device,
            dtype=dtype,
            mesh=mesh,
            attention_backend=engine.attention_backend,
            file=file,
            component_files=files,
            device_memory_gb=engine.device_memory_gb,
            residency=engine.residency,
            quantization=engine.quantization,
            prompt_enhancer=None if enhancer is None else Path(enhancer),
            report=lambda name, loaded, total: report(
                LoadingProgress(
                    rank=args.rank, component=name, loaded_bytes=loaded, total_bytes=total
                )
            ),
        )
        if mesh.rank == 0:
            if engine.upscaler_dir is not None:
                pipeline.upscalers.open(engine.upscaler_dir)
            if pipeline.enlarges_latents:
                pipeline.upscalers.look_into(folder)
        if engine.compile == "off":
            pipeline.runners.graphs = None
        made = cls(pipeline, AdapterLoader(pipeline, engine), choice.sentence)
        made.graphs = GraphMaker.of(pipeline, args)
        return made

    def loaded(self, name: str, local_ranks: int) -> RankLoaded:
        """Report this rank's model to the Scheduler, for planning."""
        weights = count_numbers(self.pipeline.denoiser_module)
        model = msgspec.structs.replace(self.pipeline.model_info(name), sharing=self._sharing)
        free = free_bytes(self.device, local_ranks)
        plan = self.pipeline.residency.plan
        if plan is not None:
            free = min(free, plan.free_in(Phase.DENOISE))
        self.captures = self.pipeline.runners.graphs is not None and has_room_for_graphs(free)
        free -= GRAPH_BYTES if self.captures else 0
        own = self._most_adapter_bytes
        most = free // 2 if own is None else min(free, own)
        return RankLoaded(
            rank=self.rank,
            model=model,
            parameters=weights,
            memory_bytes=free - min(most, self._adapter_bytes),
            adapter_bytes=most,
            device_name=describe_device(self.device),
            switches=() if plan is None else plan.switches(),
            memory=memory_of(self.rank, self.device),
        )

    def execute(self, plan: Plan, pictures: Sequence[Any] = ()) -> PlanOutcome:
        """Carry out the plan, or queue it on the device. Returns when everything is queued.

        `pictures` are the plan's frames.
        """
        if self.adapters is not None:
            self.adapters.carry_out(plan)
        for request_id in plan.drop:
            self.states.pop(request_id, None)
        if plan.drop and not plan.admit and not self.states:
            give_back_memory()
        arriving = iter(pictures)
        for req in plan.admit:
            own = list(itertools.islice(arriving, len(req.pictures)))
            state = self.states[req.id] = RequestState.of(req, own)
            if self.adapters is not None:
                self.adapters.give(state, plan.adapters.get(req.id, ()))
        self._faulted = self._faulted and not plan.resume
        outcome = PlanOutcome(plan, self.rank, self.device)
        if plan.work is not None:
            outcome.fields = {"skipped": True} if self._faulted else self._run(plan.work, outcome)
        outcome.queued()
        return outcome

    @property
    def uses_compiled(self) -> bool:
        """True while it has requests whose evaluations run compiled."""
        return any(state.runner == "compiled" for state in self.states.values())

    def _run(self, work: Work, outcome: PlanOutcome) -> dict[str, Any]:
        states = [self.states[key] for key in work.ids if key in self.states]
        if work.phase is Phase.ENHANCE:
            return self._enhance(states, work.k)
        if work.phase is Phase.ENCODE:
            return self._encode(states)
        if work.phase is Phase.DENOISE:
            return self._denoise(states, work, outcome)
        return self._decode(states, work.k, outcome)

    def _denoise(
        self, states: Sequence[RequestState], work: Work, outcome: PlanOutcome
    ) -> dict[str, Any]:
        """Collective: after an error, the batch stops on every rank until a plan resumes it."""
        before = [state.evaluation for state in states]
        for state in states:
            state.runner = work.runner
        error: WireError | None = None
        peak = PeakMemory(self.device)
        try:
            hold = partial(self.pipeline.hold, Phase.DENOISE, states, work.k)
            agree_on_memory(work.untried_bytes, self.device, hold)
            with peak:
                self.pipeline.forward(Phase.DENOISE, states, work.k)
        except Exception as raised:
            self._faulted = True
            error = _describe(raised)
        if error is not None:
            _empty_cache_after((error,))
        advanced = [state.evaluation - old for state, old in zip(states, before, strict=True)]
        previews = {s.req.id: s.preview for s in states if s.preview is not None}
        outcome.give([preview] for preview in previews.values())
        outcome.check(states)
        for state in states:
            state.preview = None
        return {
            "advanced": min(advanced, default=0),
            "error": error,
            # Graphs have memory of their own, so that replays add little.
            "peak_bytes": 0 if work.runner == "captured" else peak.bytes,
            "previewed": tuple(previews),
        }

    def _enhance(self, states: Sequence[RequestState], k: int) -> dict[str, Any]:
        """Have the language model, which is on the first rank, go on with the prompts."""
        failures: dict[str, WireError] = {}
        enhanced: dict[str, str] = {}
        enhancer, written = self.pipeline.enhancer, 0
        if enhancer is None:
            return {}
        hold = partial(self.pipeline.residency.hold, (ENHANCER,))
        for state in states:
            try:
                tokens, text = enhancer.enhance(state, k, hold)
            except Exception as raised:
                failures[state.req.id] = _describe(raised)
                continue
            written = max(written, tokens)
            if text is not None:
                enhanced[state.req.id] = text
        _empty_cache_after(failures.values())
        return {"advanced": written, "failures": failures, "enhanced": enhanced}

    def _encode(self, states: Sequence[RequestState]) -> dict[str, Any]:
        """Encode each request separately, so that errors are its own."""
        failures: dict[str, WireError] = {}
        prepared: dict[str, Prepared] = {}
        for state in states:
            try:
                self.pipeline.forward(Phase.ENCODE, [state], 1)
                prepared[state.req.id] = prepared_of(self.pipeline, state)
            except Exception as raised:
                failures[state.req.id] = _describe(raised)
        _empty_cache_after(failures.values())
        return {"advanced": 1, "failures": failures, "prepared": prepared}

    def _decode(
        self, states: Sequence[RequestState], k: int, outcome: PlanOutcome
    ) -> dict[str, Any]:
        """Decode together; if that fails, separately, so that only the faulty request ends."""
        failures: dict[str, WireError] = {}
        chunks = [decode_units(self.pipeline, state) for state in states]
        goals = [min(s.decoded + k, total) for s, total in zip(states, chunks, strict=True)]
        try:
            self.pipeline.forward(Phase.DECODE, states, k)
        except Exception as raised:
            failures = dict.fromkeys((state.req.id for state in states), _describe(raised))
        _empty_cache_after(failures.values())
        if failures and len(states) > 1:
            failures = self._decode_apart(states, goals)
        failures |= _shared_failures(states)
        _empty_cache_after(failures.values())
        finished = [
            state
            for state, total in zip(states, chunks, strict=True)
            if state.decoded == total
            and state.chunks
            and state.second is None
            and state.req.id not in failures
        ]
        self._go_on_to_next_passes(states)
        outcome.give(parts for state in finished for parts in state.made)
        outcome.check(states)
        return {
            "advanced": k,
            "failures": failures,
            "error": self._out_of_step(states, goals, failures),
            "finished": tuple(state.req.id for state in finished),
            "audio_rates": {
                state.req.id: state.audio_rate for state in finished if state.audio is not None
            },
        }

    def _go_on_to_next_passes(self, states: Sequence[RequestState]) -> None:
        for state in states:
            if state.second is not None and state.second.is_begun:
                state.second.runner = state.runner
                self.states[state.req.id] = state.second

    def _out_of_step(
        self,
        states: Sequence[RequestState],
        goals: Sequence[int],
        failures: Mapping[str, WireError],
    ) -> WireError | None:
        """The error of a request in whose decoding other ranks wait for this one, which could not
        begin with it."""
        if self.pipeline.context.mesh.world_size == 1:
            return None
        behind = (
            failures.get(state.req.id)
            for state, goal in zip(states, goals, strict=True)
            if state.decoded < goal and self.pipeline.decoded_by_all(state.params)
        )
        return next(behind, None)

    def _decode_apart(
        self, states: Sequence[RequestState], goals: Sequence[int]
    ) -> dict[str, WireError]:
        """Decode the chunks that each request still lacks to its goal, a number of chunks, and
        then its sound, even if it lacks nothing else."""
        failures: dict[str, WireError] = {}
        for state, goal in zip(states, goals, strict=True):
            try:
                self.pipeline.forward(Phase.DECODE, [state], goal - state.decoded)
            except Exception as raised:
                failures[state.req.id] = _describe(raised)
        return failures


def _shared_failures(states: Sequence[RequestState]) -> dict[str, WireError]:
    """Errors of requests whose decoding went on nevertheless, as other ranks wait for it."""
    return {
        state.req.id: _describe(state.shared.failure)
        for state in states
        if state.shared is not None and state.shared.failure is not None
    }


def _describe(raised: Exception) -> WireError:
    if isinstance(raised, MultimodalGenError):
        return WireError.of(raised)
    if is_out_of_memory(raised):
        return WireError.of(OutOfMemory("the request does not fit into memory; reduce its size"))
    log.error("a request failed", exc_info=raised)
    return WireError.of(GenerationFailed(f"{type(raised).__name__}: {raised}"[:500]))


def _empty_cache_after(errors: Iterable[WireError]) -> None:
    """Free the allocator's cache after an out-of-memory: a retry may need larger blocks.

    Not within `except`, whose traceback holds the failed try's memory.
    """
    if any(error.code == OutOfMemory.code for error in errors):
        torch.cuda.empty_cache()
