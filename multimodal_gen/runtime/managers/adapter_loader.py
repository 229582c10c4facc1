"""LoRAs and controls of one rank: read on a separate thread, activated between two steps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from queue import SimpleQueue

import torch

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder
from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import InvalidRequest, MultimodalGenError, OutOfMemory
from multimodal_gen.messages.pictures import control_names
from multimodal_gen.messages.plan import AdapterKind, AdapterLoad, AdapterRead, Plan
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.controls.control import Control
from multimodal_gen.runtime.controls.control_rows import ControlUse
from multimodal_gen.runtime.controls.reader import ControlReader
from multimodal_gen.runtime.layers.lora import Lora, LoraUse
from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.managers.rank_device import is_out_of_memory
from multimodal_gen.runtime.pipelines.adapter_readers import control_reader, lora_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

log = logging.getLogger(__name__)


class AdapterLoader:
    """Carries out the orders of plans for adapters. Only the reading is done on its own thread."""

    def __init__(self, pipeline: ComposedPipeline, engine: EngineArgs) -> None:
        self._sources: dict[AdapterKind, tuple[AdapterFolder, LoraReader | ControlReader]] = {}
        if engine.lora_dir is not None and pipeline.supports_lora:
            self._sources["lora"] = LoraFolder(Path(engine.lora_dir)), lora_reader(pipeline)
        if engine.control_dir is not None and pipeline.supports_control:
            folder = ControlFolder(Path(engine.control_dir))
            self._sources["control"] = folder, control_reader(pipeline)
        sizes = [size for folder, _ in self._sources.values() for size in folder.sizes()]
        self.expected_bytes = sum(sorted(sizes, reverse=True)[: engine.max_loaded_loras])
        """Memory that as many adapters as may be loaded take, if they are the largest."""
        self.most_bytes = None if engine.max_lora_gb is None else int(engine.max_lora_gb * 1e9)
        """Bytes that they may take together; None: half of what is free."""
        self._loras = pipeline.loras
        self._controls = pipeline.controls
        self._of_model = pipeline.own_controls
        self._rank = pipeline.context.mesh.rank
        self._cuda = pipeline.context.device.type == "cuda"
        self._orders: SimpleQueue[AdapterLoad] = SimpleQueue()
        self._read: dict[int, Lora | Control] = {}
        """Read, but not activated yet."""

    def start(self, report: Callable[[AdapterRead], None]) -> None:
        """Start reading ordered adapters, and `report` each."""
        device = torch.cuda.current_device() if self._cuda else None
        arguments = (report, device)
        threading.Thread(target=self._serve, args=arguments, name="adapters", daemon=True).start()

    def carry_out(self, plan: Plan) -> None:
        """Free what the plan unloads, and start reading what it loads."""
        for number in plan.unload:
            self._read.pop(number, None)
            self._loras.remove(number)
            self._controls.remove(number)
        for order in plan.load:
            self._orders.put(order)

    def give(self, state: RequestState, numbers: Sequence[int]) -> None:
        """Let a request use the adapters of its parameters, which must have been read."""
        for number in numbers:
            if (adapter := self._read.pop(number, None)) is not None:
                self._put_in_place(number, adapter)
        params, loras = state.params, len(state.params.lora)
        state.loras = tuple(
            LoraUse(number, choice.scale, choice.start, choice.stop)
            for number, choice in zip(numbers[:loras], params.lora, strict=True)
        )
        names = control_names(len(params.control))
        chosen = zip(params.control, names, strict=True)
        loaded = [each for each in chosen if each[0].name not in self._of_model]
        state.controls = tuple(
            ControlUse.of(number, choice, name)
            for number, (choice, name) in zip(numbers[loras:], loaded, strict=True)
        )

    def _put_in_place(self, number: int, adapter: Lora | Control) -> None:
        for tensor in adapter.tensors if self._cuda else ():
            # Freed only once the work that uses it is done.
            tensor.record_stream(torch.cuda.current_stream())
        if isinstance(adapter, Lora):
            self._loras.add(number, adapter)
        else:
            self._controls.add(number, adapter)

    def _serve(self, report: Callable[[AdapterRead], None], cuda_device: int | None) -> None:
        if cuda_device is not None:
            torch.cuda.set_device(cuda_device)
        while True:
            order = self._orders.get()
            error: MultimodalGenError | None = None
            adapter, digest = None, ""
            try:
                adapter, digest = self._loaded(order)
                self._read[order.number] = adapter
            except MultimodalGenError as raised:
                error = raised
            except Exception as raised:
                error = _described(order, raised)
            reason = None if error is None else WireError.of(error)
            report(
                AdapterRead(
                    number=order.number,
                    rank=self._rank,
                    digest=digest,
                    size=0 if adapter is None else sum(each.nbytes for each in adapter.tensors),
                    warnings=() if adapter is None else _told(order, adapter),
                    error=reason,
                )
            )

    def _loaded(self, order: AdapterLoad) -> tuple[Lora | Control, str]:
        """The adapter, and the digest of its files."""
        folder, reader = self._sources[order.kind]
        file = folder.find(order.name)
        before = file.stamp
        with _beside_the_work() if self._cuda else nullcontext():
            adapter = (
                reader.read(file, order.target)
                if isinstance(reader, LoraReader)
                else reader.read(file)
            )
        digest = file.digest
        if file.stamp != before:
            raise InvalidRequest(order.kind, order.name, "was changed during loading; try again")
        return adapter, digest


def _described(order: AdapterLoad, raised: Exception) -> MultimodalGenError:
    if is_out_of_memory(raised):
        return OutOfMemory(f"{order.kind}={order.name!r} does not fit into memory")
    log.error("reading an adapter failed", exc_info=raised)
    return InvalidRequest(order.kind, order.name, f"can't be read: {raised}")


@contextmanager
def _beside_the_work() -> Iterator[None]:
    """Copy to the GPU on a separate stream: neither waits for the steps nor delays them."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _told(order: AdapterLoad, adapter: Lora | Control) -> tuple[RequestWarning, ...]:
    """Return the warnings for requests that use the adapter."""
    return tuple(RequestWarning("adapter", order.kind, text) for text in adapter.warnings)
