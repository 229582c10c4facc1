"""LoRAs of one rank: read on a separate thread, activated between two steps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

import torch

from multimodal_gen.checkpoints.lora.folder import LoraFile, LoraFolder
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.errors import InvalidRequest, MultimodalGenError, OutOfMemory
from multimodal_gen.messages.plan import LoraLoad, LoraRead, Plan
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.layers.lora import Lora, LoraUse
from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.managers.rank_device import is_out_of_memory
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.lora_reading import lora_reader

log = logging.getLogger(__name__)


class LoraLoader:
    """Carries out the LoRA orders of plans. Only the reading is done on its own thread."""

    def __init__(
        self, pipeline: ComposedPipeline, folder: Path, most: int, most_bytes: int | None = None
    ) -> None:
        """`most`: how many LoRAs may be loaded at a time; `most_bytes`: of which size together, by
        default half of what is free."""
        self._folder = LoraFolder(folder)
        self.expected_bytes = sum(self._folder.sizes()[:most])
        """Memory that as many LoRAs as may be loaded take, if they are the largest."""
        self.most_bytes = most_bytes
        self._reader = lora_reader(pipeline)
        self._loras = pipeline.loras
        self._rank = pipeline.context.mesh.rank
        self._cuda = pipeline.context.device.type == "cuda"
        self._orders: SimpleQueue[LoraLoad] = SimpleQueue()
        self._read: dict[int, Lora] = {}
        """Read, but not activated yet."""

    def start(self, report: Callable[[LoraRead], None]) -> None:
        """Start reading ordered LoRAs, and `report` each."""
        device = torch.cuda.current_device() if self._cuda else None
        arguments = (report, device)
        threading.Thread(target=self._serve, args=arguments, name="loras", daemon=True).start()

    def carry_out(self, plan: Plan) -> None:
        """Free what the plan unloads, and start reading what it loads."""
        for number in plan.unload:
            self._read.pop(number, None)
            self._loras.remove(number)
        for order in plan.load:
            self._orders.put(order)

    def uses(self, numbers: Sequence[int], choices: Sequence[LoraChoice]) -> tuple[LoraUse, ...]:
        """LoRA terms of a request for the model's modules; its LoRAs must have been read."""
        for number in numbers:
            if (lora := self._read.pop(number, None)) is not None:
                self._put_in_place(number, lora)
        return tuple(
            LoraUse(number, choice.scale, choice.start, choice.stop)
            for number, choice in zip(numbers, choices, strict=True)
        )

    def _put_in_place(self, number: int, lora: Lora) -> None:
        for tensor in lora.tensors if self._cuda else ():
            # Freed only once the work that uses it is done.
            tensor.record_stream(torch.cuda.current_stream())
        self._loras.add(number, lora)

    def _serve(self, report: Callable[[LoraRead], None], cuda_device: int | None) -> None:
        if cuda_device is not None:
            torch.cuda.set_device(cuda_device)
        while True:
            order = self._orders.get()
            error: MultimodalGenError | None = None
            lora, digest = None, ""
            try:
                lora, digest = self._loaded(order)
                self._read[order.number] = lora
            except MultimodalGenError as raised:
                error = raised
            except Exception as raised:
                error = _described(order, raised)
            reason = None if error is None else WireError.of(error)
            report(
                LoraRead(
                    number=order.number,
                    rank=self._rank,
                    digest=digest,
                    size=0 if lora is None else sum(each.nbytes for each in lora.tensors),
                    warnings=() if lora is None else lora.warnings,
                    error=reason,
                )
            )

    def _loaded(self, order: LoraLoad) -> tuple[Lora, str]:
        """The LoRA, and the digest of its files."""
        file = self._folder.find(order.name)
        before = file.stamp
        read = _read_beside_the_work if self._cuda else LoraReader.read
        lora, digest = read(self._reader, file, order.target), file.digest
        if file.stamp != before:
            raise InvalidRequest("lora", order.name, "was changed during loading; try again")
        return lora, digest


def _described(order: LoraLoad, raised: Exception) -> MultimodalGenError:
    if is_out_of_memory(raised):
        return OutOfMemory(f"lora={order.name!r} does not fit into memory")
    log.error("reading a LoRA failed", exc_info=raised)
    return InvalidRequest("lora", order.name, f"can't be read: {raised}")


def _read_beside_the_work(reader: LoraReader, file: LoraFile, target: str | None) -> Lora:
    """Copy to the GPU on a separate stream: neither waits for the steps nor delays them."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        lora = reader.read(file, target)
    stream.synchronize()
    return lora
