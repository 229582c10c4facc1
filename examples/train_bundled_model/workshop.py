"""All steps in their order, each skipped when it was done before."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import crew
import latents
import numpy as np
import packages
import words
from captions import Captions
from card import write_card
from concepts import RECOLORS, Concept, read_concepts
from denoiser import DenoiserStage, Painter
from diffusers import AutoencoderKL
from drawing import NATIVE, UNKNOWN, Artist
from evaluate import evaluate
from export import export
from grids import write_grids
from pools import make_pool
from shown import write_examples
from text import Reader, TextStage
from tokenizers import Tokenizer
from trainer import Progress, Stage, device, trained, workers
from vae import DecoderStage, VaeStage, make_vae

SHARES = {"vae": 0.1, "decoder": 0.02, "text": 0.015, "denoiser": 0.865}
"""Of the training time."""


class Settings(NamedTuple):
    """How much of everything."""

    minutes: float
    """Of training, in all."""
    concepts: int | None
    pool: int
    captions: int
    scenes: int
    batch: int
    """Of each worker, for the denoiser; the others' follow from it."""
    compiled: bool
    evaluated: int | None
    """Prompts a table; None for all there are."""


FULL = Settings(610, None, 14000, 60000, 40000, 40, compiled=True, evaluated=None)
REDUCED = Settings(0.25, 16, 64, 2000, 40, 8, compiled=False, evaluated=1)


class Workshop:
    """Makes the model. Everything on the way lies in the folder `work`."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self._work = work
        self._settings = settings
        self._packages = work / "packages"
        self._pool = work / "pool.npy"
        self._tokens = work / "tokenizer.json"
        self._scale = work / "scale.json"
        self._latents = work / "latents"

    # -- the steps

    def make(self, out: Path, grids: Path | None) -> None:
        """Everything, up to the finished folder `out`; sample grids into `grids`."""
        self._packages.mkdir(exist_ok=True)
        packages.fetch(self._packages)
        self._once(self._pool, self._draw_pool)
        self._train("vae")
        self._once(self._tokens, self._learn_tokens)
        self._train("text")
        self._once(self._scale, self._measure)
        self._once(self._latents, self._encode)
        self._train("decoder")
        self._train("denoiser")
        export(self.vae, self.painter, self.tokenizer, out)
        write_examples(out, self.concepts)
        report = evaluate(out, self._packages, limit=self._settings.evaluated, seed=0)
        print(report.markdown())
        write_card(out, report, self.concepts, self._cost())
        if grids is not None:
            write_grids(out, grids, self._settings.evaluated)

    def work(self, step: str, rank: int, world: int) -> None:
        """What one worker does of a step."""
        crew.settle(rank)
        if step == "latents":
            folder, scenes = _partial(self._latents), self._settings.scenes
            latents.write(self.vae, Artist(self.concepts), folder, scenes, rank, world)
        else:
            minutes = self._settings.minutes * SHARES[step]
            crew.train(self._stage(step), self._work / step, rank, world, minutes)

    def _train(self, step: str) -> None:
        folder = self._work / step
        folder.mkdir(exist_ok=True)
        (folder / "workers").unlink(missing_ok=True)
        self._once(folder / "done", lambda: self._finish(step))

    def _finish(self, step: str) -> None:
        crew.run(self._work, step)
        _partial(self._work / step / "done").touch()

    def _draw_pool(self) -> None:
        make_pool(self._packages, _partial(self._pool), self._settings.pool)

    def _learn_tokens(self) -> None:
        rng, artist = np.random.default_rng(3), Artist(self.concepts)
        scenes = (artist.imagine(*NATIVE, rng).scene for _ in range(self._settings.captions))
        said = (self._captions.draw(scene, rng, lone=0.3) for scene in scenes)
        words.train_tokenizer(said).save(str(_partial(self._tokens)))

    def _measure(self) -> None:
        shift, factor = latents.measure(self.vae, self._pool)
        _partial(self._scale).write_text(json.dumps({"shift": shift, "factor": factor}))

    def _encode(self) -> None:
        folder = _partial(self._latents)
        folder.mkdir(exist_ok=True)
        latents.join(folder, crew.run(self._work, "latents"))

    def _once(self, result: Path, step: Callable[[], None]) -> None:
        """Do a step whose result isn't there. It leaves `_partial(result)`."""
        if result.exists():
            return
        began = time.monotonic()
        print(f"making {result}", file=sys.stderr, flush=True)
        step()
        _partial(result).replace(result)
        print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def _cost(self) -> dict[str, str]:
        """What the training took, by stage."""
        found = {}
        for step in SHARES:
            spent = Progress(**json.loads((self._work / step / "progress.json").read_text()))
            found[step] = (
                f"{spent.seconds / 60:.0f} min, {spent.step:,} steps, {spent.samples:,} samples"
            )
        return {**found, "on": f"{workers()} CPU cores" if device().type == "cpu" else "one GPU"}

    # -- what the steps work on

    @cached_property
    def concepts(self) -> dict[str, Concept]:
        """All of them, or the first few everyday ones."""
        found = read_concepts(self._packages)
        if self._settings.concepts is None:
            return found
        everyday = ((n, c) for n, c in found.items() if c.everyday or n == UNKNOWN)
        return {**dict(islice(everyday, self._settings.concepts)), UNKNOWN: found[UNKNOWN]}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self._tokens))

    @property
    def vae(self) -> AutoencoderKL:
        """The trained autoencoder, as far as it is trained."""
        vae = make_vae()
        vae.load_state_dict(trained(self._work / "vae"))
        if (self._work / "decoder" / "done").exists():
            vae.decoder.load_state_dict(trained(self._work / "decoder"))
        if self._scale.exists():
            scale = json.loads(self._scale.read_text())
            vae.register_to_config(scaling_factor=scale["factor"], shift_factor=scale["shift"])
        return vae.eval().to(device())

    @cached_property
    def painter(self) -> Painter:
        """The trained text encoders and denoiser."""
        painter = Painter(list(self.concepts), RECOLORS)
        painter.load_state_dict(trained(self._work / "denoiser"), strict=False)
        return painter.eval()

    @cached_property
    def _captions(self) -> Captions:
        nonsense = packages.read_json(self._packages, packages.WORDS, "index.json")
        known = {word for name, c in self.concepts.items() for word in (name, *c.also, *c.lone)}
        return Captions(self.concepts, [word for word in nonsense if word not in known])

    def _stage(self, step: str) -> Stage:
        names, batch = list(self.concepts), self._settings.batch
        if step == "vae":
            return VaeStage(make_vae(), self._pool, max(1, batch // 4))
        if step == "decoder":
            return DecoderStage(self.vae, self._pool, max(1, batch // 4))
        if step == "text":
            artist = Artist(self.concepts)
            return TextStage(
                Reader(names, RECOLORS), artist, self._captions, self.tokenizer, 4 * batch
            )
        painter = Painter(names, RECOLORS)
        painter.load_state_dict(trained(self._work / "text"), strict=False)
        return DenoiserStage(
            painter,
            self._latents,
            self._captions,
            self.tokenizer,
            batch,
            compiled=self._settings.compiled,
        )


def _partial(path: Path) -> Path:
    return path.with_name(f"partial-{path.name}")
