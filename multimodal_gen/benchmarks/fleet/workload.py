"""Jobs of a service with short pictures and long videos, as they might arrive in a day."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_defaults import Defaults
from multimodal_gen.messages.model_info import Limits, ModelInfo
from multimodal_gen.messages.request import Req

ENCODE_S = 0.02
MAX_BATCH = 8


@dataclass(frozen=True)
class WorkloadKind:
    """A kind of job, and what its phases take on a device alone."""

    model: str
    share: float
    """Part of all jobs."""
    size: tuple[int, int, int]
    """Width, height, frames."""
    steps: int
    evaluation_s: float
    decode_s: float
    gain: float
    """Part of an evaluation that sharing it saves, for each further request."""

    @property
    def alone_s(self) -> float:
        return ENCODE_S + self.steps * self.evaluation_s + self.decode_s

    def together_s(self, requests: int) -> float:
        """Seconds of an evaluation of so many requests."""
        return self.evaluation_s * (requests * (1 - self.gain) + self.gain)


KINDS: Mapping[str, WorkloadKind] = {
    "picture 1024, 8 steps": WorkloadKind("pictures", 0.38, (1024, 1024, 1), 8, 0.094, 0.05, 0.03),
    "picture 1024, 28 steps": WorkloadKind(
        "pictures", 0.30, (1024, 1024, 1), 28, 0.094, 0.05, 0.03
    ),
    "picture 512, 28 steps": WorkloadKind("pictures", 0.10, (512, 512, 1), 28, 0.030, 0.02, 0.35),
    "still 720p, 8 steps": WorkloadKind("videos", 0.156, (1280, 720, 1), 8, 0.094, 0.05, 0.03),
    "video 480p, 37 s": WorkloadKind("videos", 0.06, (832, 480, 81), 50, 0.72, 1.0, 0.0),
    "video 720p, 10 min": WorkloadKind("videos", 0.004, (1280, 720, 81), 50, 12.0, 4.0, 0.0),
}
"""Each evaluation as on a large GPU, of a 12 billion and a 14 billion parameter model."""
LORAS = tuple(f"style-{number}" for number in range(24))
LORA_SHARE = 0.2
LORA_LOAD_S = 0.5
DEADLINE_SHARE = 0.1
CANCELLED_SHARE = 0.03


@dataclass
class SimulatedJob:
    """A job, and what became of it."""

    kind: WorkloadKind
    name: str
    arrives: float
    req: Req
    cancelled_at: float | None
    done: int = 0
    """Evaluations done where it is now."""
    ends: list[tuple[float, str]] = field(default_factory=list)
    """When and how it ended: exactly one, at last."""

    @property
    def deadline(self) -> float | None:
        allowed = self.req.params.deadline_s
        return None if allowed is None else self.arrives + allowed

    @property
    def slowdown(self) -> float:
        """Time until its end, for one second alone on an engine."""
        return (self.ends[0][0] - self.arrives) / self.kind.alone_s


def model_info(model: str) -> ModelInfo:
    defaults = Defaults(width=1024, height=1024, num_inference_steps=28)
    limits = Limits(max_frames=81)
    return ModelInfo(
        name=model,
        family=model,
        tasks=("text-to-image", "text-to-video"),
        defaults=defaults,
        limits=limits,
        size_multiple=16,
        frame_multiple=4,
    )


def engines_of(number: int) -> dict[str, str]:
    """Names of so many engines, and the model of each, in proportion to the work."""
    work = dict.fromkeys(("pictures", "videos"), 0.0)
    for kind in KINDS.values():
        work[kind.model] += kind.share * kind.alone_s
    pictures = max(1, round(number * work["pictures"] / sum(work.values())))
    return {f"e{n}": "pictures" if n < pictures else "videos" for n in range(number)}


def jobs(number: int, *, load: float, engines: int, seed: int) -> Iterator[SimulatedJob]:
    """Arrivals at random. `load`: the work that arrives, over what engines can do one by one."""
    rng, now = random.Random(seed), 0.0
    mean_s = sum(kind.share * kind.alone_s for kind in KINDS.values())
    names, shares = list(KINDS), [kind.share for kind in KINDS.values()]
    for index in range(number):
        now += rng.expovariate(load * engines / mean_s)
        name = rng.choices(names, shares)[0]
        yield _job(rng, name, str(index), now)


def _job(rng: random.Random, name: str, job_id: str, now: float) -> SimulatedJob:
    kind = KINDS[name]
    width, height, frames = kind.size
    params = SamplingParams(
        prompt="a red heart",
        width=width,
        height=height,
        num_frames=frames,
        num_inference_steps=kind.steps,
        deadline_s=3 * kind.alone_s + 1 if rng.random() < DEADLINE_SHARE else None,
        lora=(LoraChoice(rng.choice(LORAS)),) if rng.random() < LORA_SHARE else (),
    )
    leaves = rng.random() < CANCELLED_SHARE
    cancelled_at = now + rng.uniform(0, 1.5 * kind.alone_s) if leaves else None
    return SimulatedJob(kind, name, now, Req(id=job_id, params=params), cancelled_at)
