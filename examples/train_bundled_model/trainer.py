"""Trains a module by several workers on shared weights.

On a CPU there is one single-threaded worker a core. All of them see one flat buffer of weights in
shared memory, and each writes gradients of its own. Between two barriers each worker averages the
gradients of its share of the weights over all workers, and updates that share: nothing is copied,
and the optimiser's work is divided. On a GPU there is one worker and no barrier.

Matrices are updated by Muon (orthogonalised momentum, Newton-Schulz: Jordan et al., 2024), the rest
by AdamW. Time is the budget: the learning rate follows the share of the minutes that has passed.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WARM_UP_STEPS = 100
CONSTANT_SHARE = 0.75
LAST_RATE = 0.02
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
LOG_S = 20.0
KEEP_S = 180.0


class Rates(NamedTuple):
    """Settings of the optimiser."""

    muon: float
    adam: float
    decay: float = 0.0
    """Of what Muon updates."""
    ema: float = 0.998
    clip: float = 1.0


class Stage(Protocol):
    """Something to train."""

    name: str
    module: nn.Module
    rates: Rates

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool: ...

    def loss(self, step: int, share: float, rng: np.random.Generator) -> tuple[Tensor, int]:
        """The loss of a batch drawn by `rng`, and how many samples it held.

        `step` is the same for all workers, so that what they draw from it costs them the same.
        `share` of the time has passed.
        """


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def workers() -> int:
    """How many workers train together."""
    return 1 if device().type == "cuda" else len(os.sched_getaffinity(0))


class Progress(NamedTuple):
    step: int = 0
    seconds: float = 0.0
    samples: int = 0


class Trainer:
    """One worker's part in the training of a stage. `folder` keeps what it resumes from."""

    def __init__(self, stage: Stage, folder: Path, rank: int, world: int) -> None:
        self._stage = stage
        self._folder = folder
        self._rank = rank
        self._world = world
        self._module = stage.module.to(device()).train()
        self._named = self._in_order()
        self._size = sum(parameter.numel() for _, parameter in self._named)
        self._weights = self._buffer("weights", self._size)
        self._gradients = [self._buffer(f"gradients{r}", self._size) for r in range(world)]
        self._ema = self._buffer("ema", self._size)
        self._momentum = self._buffer("momentum", self._size)
        self._square = self._buffer("square", self._size)
        self._clock = self._buffer("clock", 1)
        self._views = self._bind()
        self._progress = self._resume()
        self._barrier()

    # -- the layout: each worker's share lies in one piece

    def _in_order(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters, the first worker's share first, in each share AdamW's before Muon's."""
        shares: list[list[tuple[str, nn.Parameter]]] = [[] for _ in range(self._world)]
        loads = [0] * self._world
        named = [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]
        for name, parameter in sorted(named, key=lambda item: (-item[1].numel(), item[0])):
            least = loads.index(min(loads))
            shares[least].append((name, parameter))
            loads[least] += parameter.numel()
        for share in shares:
            share.sort(key=lambda item: self._stage.by_muon(*item))
        own = shares[self._rank]
        start = sum(loads[: self._rank])
        by_adam = sum(p.numel() for name, p in own if not self._stage.by_muon(name, p))
        self._share = slice(start, start + loads[self._rank])
        self._by_adam = slice(start, start + by_adam)
        self._by_muon = [name for name, p in own if self._stage.by_muon(name, p)]
        return [item for share in shares for item in share]

    def _buffer(self, name: str, size: int) -> Tensor:
        """A flat float32 tensor, zero at first, that all workers see."""
        if device().type == "cuda":
            return torch.zeros(size, device=device())
        path = self._folder / f"{name}.f32"
        if self._rank == 0:
            path.write_bytes(b"")
            os.truncate(path, size * 4)
        self._barrier()
        return torch.from_file(str(path), shared=True, size=size)

    def _bind(self) -> dict[str, tuple[nn.Parameter, slice]]:
        """Make the module's parameters and gradients views of the buffers."""
        views: dict[str, tuple[nn.Parameter, slice]] = {}
        start = 0
        for name, parameter in self._named:
            at = slice(start, start + parameter.numel())
            if self._rank == 0:
                self._weights[at] = parameter.data.flatten()
                self._ema[at] = parameter.data.flatten()
            parameter.data = self._weights[at].view(parameter.shape)
            parameter.grad = self._gradients[self._rank][at].view(parameter.shape)
            views[name] = (parameter, at)
            start = at.stop
        self._barrier()
        return views

    # -- what is kept

    @property
    def _kept(self) -> Path:
        return self._folder / "checkpoint.safetensors"

    def _resume(self) -> Progress:
        if not self._kept.exists():
            return Progress()
        if self._rank == 0:
            for key, tensor in load_file(self._kept).items():
                kind, name = key.split(":")
                self._buffers()[kind][self._views[name][1]] = tensor.flatten().to(device())
        kept = json.loads((self._folder / "progress.json").read_text())
        return Progress(**kept)

    def _buffers(self) -> dict[str, Tensor]:
        return {
            "weights": self._weights,
            "ema": self._ema,
            "momentum": self._momentum,
            "square": self._square,
        }

    def _keep(self, progress: Progress) -> None:
        tensors = {
            f"{kind}:{name}": buffer[at].view(parameter.shape).cpu()
            for kind, buffer in self._buffers().items()
            for name, (parameter, at) in self._views.items()
        }
        partial = self._kept.with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(self._kept)
        (self._folder / "progress.json").write_text(json.dumps(progress._asdict()))

    # -- training

    def train(self, minutes: float) -> None:
        """Train until `minutes` have been spent in all, with what an earlier run spent."""
        progress = self._progress
        began = time.monotonic() - progress.seconds
        logged = kept = progress.seconds
        losses: list[float] = []
        spent = progress.seconds / (minutes * 60)
        while spent < 1.0:
            rng = np.random.default_rng([progress.step, self._rank])
            self._gradients[self._rank].zero_()
            loss, samples = self._stage.loss(progress.step, spent, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            if self._rank == 0:
                self._clock[0] = time.monotonic() - began
            self._barrier()
            # Of one clock, so that all workers do the same.
            seconds = float(self._clock[0])
            self._update(progress.step, _rate(progress.step, spent))
            self._barrier()
            spent = seconds / (minutes * 60)
            progress = Progress(
                progress.step + 1, seconds, progress.samples + samples * self._world
            )
            if self._rank == 0 and (seconds - logged > LOG_S or spent >= 1.0):
                self._log(progress, losses, minutes)
                losses.clear()
                logged = seconds
            if seconds - kept > KEEP_S or spent >= 1.0:
                if self._rank == 0:
                    self._keep(progress)
                self._barrier()
                kept = seconds

    def _log(self, progress: Progress, losses: list[float], minutes: float) -> None:
        line = (
            f"{self._stage.name}: {progress.seconds / 60:.1f} of {minutes:g} min, "
            f"step {progress.step}, loss {sum(losses) / max(len(losses), 1):.4f}, "
            f"{progress.samples / max(progress.seconds, 1e-9):.0f} samples/s"
        )
        print(line, file=sys.stderr, flush=True)

    @torch.no_grad()
    def _update(self, step: int, rate: float) -> None:
        """Update this worker's share of the weights. Its gradients become the mean over all."""
        rates, at = self._stage.rates, self._share
        gradient = self._gradients[self._rank][at]
        for rank, other in enumerate(self._gradients):
            if rank != self._rank:
                gradient += other[at]
        gradient /= self._world
        norm = float(gradient.norm())
        if norm > rates.clip:
            gradient *= rates.clip / norm
        self._adam(step, rate * rates.adam)
        self._muon(rate * rates.muon)
        # An average of few steps would remember the first weights.
        ema = min(rates.ema, (step + 1) / (step + 10))
        self._ema[at].lerp_(self._weights[at], 1 - ema)

    def _adam(self, step: int, rate: float) -> None:
        beta1, beta2, at = 0.9, 0.95, self._by_adam
        gradient = self._gradients[self._rank][at]
        momentum = self._momentum[at].lerp_(gradient, 1 - beta1)
        square = self._square[at].lerp_(gradient.square(), 1 - beta2)
        deviation = (square / (1 - beta2 ** (step + 1))).sqrt() + 1e-8
        self._weights[at].addcdiv_(momentum, deviation, value=-rate / (1 - beta1 ** (step + 1)))

    def _muon(self, rate: float) -> None:
        """Matrices of one shape go through Newton-Schulz together."""
        groups: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
        for name in self._by_muon:
            parameter, at = self._views[name]
            gradient = self._gradients[self._rank][at]
            momentum = self._momentum[at].mul_(0.95).add_(gradient)
            shape = (parameter.shape[0], parameter.numel() // parameter.shape[0])
            direction = gradient.add(momentum, alpha=0.95).view(shape)
            groups.setdefault(shape, []).append((parameter, direction))
        for shape, members in groups.items():
            updates = orthogonalised(torch.stack([direction for _, direction in members]))
            scale = 0.2 * math.sqrt(max(shape))
            for (parameter, _), update in zip(members, updates, strict=True):
                parameter.data.mul_(1 - rate * self._stage.rates.decay)
                parameter.data.sub_(rate * scale * update.view(parameter.shape))

    def _barrier(self) -> None:
        if self._world > 1:
            dist.barrier()


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, about: [..., rows, columns]. Half precision will do."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def trained(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a stage that was trained in `folder`, by name."""
    tensors = load_file(folder / "checkpoint.safetensors")
    return {key.split(":")[1]: t for key, t in tensors.items() if key.startswith("ema:")}


def _rate(step: int, share: float) -> float:
    """Of the full learning rate: warm-up, constant, cosine."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    falling = max(0.0, (share - CONSTANT_SHARE) / (1 - CONSTANT_SHARE))
    return warm * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, falling))))
