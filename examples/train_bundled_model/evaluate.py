"""How good the finished model is: what its pictures show, and how well its VAE keeps pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import torch
from artwork import Icon, read_icons, render
from captions import Thing
from concepts import Concept, held_out_artwork, read_concepts
from diffusers import AutoencoderKL, FluxTransformer2DModel
from drawing import UNKNOWN
from questions import Question, Questioner
from report import Report, Row, Table
from retrieval import Gallery, Match
from sampling import DEFAULT, Settings, draw, load
from scenes import Placed, compose
from transformers import CLIPTextModel, T5EncoderModel

COMPONENTS = {
    "transformer": FluxTransformer2DModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": T5EncoderModel,
}
FEW, SOME, MANY = 64, 256, 512
SEEDS = 4
BLACK = ("black large square", "black circle")
SIZES = ((96, 96), (112, 112), (128, 128), (96, 128), (128, 96))


def evaluate(model: Path, packages: Path, *, limit: int | None, seed: int) -> Report:
    """Every table, from the model in diffusers' layout and the unpacked packages.

    `limit` bounds the prompts of a table and with them the drawings that pictures are compared
    with, for a quick look. Raises ValueError when a component lacks weights or has others.
    """
    check_keys(model)
    concepts = read_concepts(packages)
    if limit is not None:
        concepts = {**dict(islice(_everyday(concepts), 8 * limit)), UNKNOWN: concepts[UNKNOWN]}
    with _timed("gallery"):
        gallery = Gallery(concepts)
    asked = Questioner(concepts, limit, seed)
    examiner = Examiner(model, gallery, seed)
    few = asked.everyday(FEW)
    return Report(
        [
            examiner.words(asked, packages),
            examiner.backgrounds(asked),
            examiner.pairs(asked),
            examiner.settings("Steps", few, {str(n): Settings(steps=n) for n in (4, 8, 12, 20)}),
            examiner.settings(
                "True classifier-free guidance",
                few,
                {"none" if n == 1 else f"{n:g}": Settings(true_cfg=n) for n in (1, 1.5, 2, 3)},
            ),
            examiner.settings(
                "Padded length of the text",
                few[: FEW // 2],
                {str(n): Settings(length=n) for n in (16, 32, 64, 128, 512)},
            ),
            examiner.settings(
                "Width x height", few, {f"{w}x{h}": Settings(height=h, width=w) for h, w in SIZES}
            ),
            examiner.seeds(few),
            vae_table(model, read_icons(packages), limit),
        ],
        sum(file.stat().st_size for file in model.rglob("*") if file.is_file()),
    )


def check_keys(model: Path) -> None:
    """Raises ValueError when a component has missing or unexpected weights."""
    for folder, component in COMPONENTS.items():
        info = component.from_pretrained(model, subfolder=folder, output_loading_info=True)[1]
        wrong = {key: value for key, value in info.items() if value}
        if wrong:
            raise ValueError(f"{folder}: {wrong}")


class Examiner:
    """Has pictures made and says whether they are right. Prompt i has the seed `seed` + i."""

    def __init__(self, model: Path, gallery: Gallery, seed: int) -> None:
        self._pipeline = load(model)
        self._gallery = gallery
        self._seed = seed

    def words(self, asked: Questioner, packages: Path) -> Table:
        kinds = {
            "names": asked.names(),
            "everyday names": asked.everyday(SOME),
            "synonyms": asked.synonyms(2 * MANY),
            "lone keywords": asked.keywords(MANY),
            "recoloured, trained": asked.recolored(SOME),
            "recoloured, never trained": asked.held_out(),
            "unknown words (a question mark)": asked.unknown(packages, FEW),
        }
        return Table("Words", [self._row(*kind, self._single) for kind in kinds.items()])

    def backgrounds(self, asked: Questioner) -> Table:
        questions = asked.backgrounds(self._gallery, SOME)
        return Table("Backgrounds", [self._row("asked for", questions, self._single)])

    def pairs(self, asked: Questioner) -> Table:
        return Table("Two objects", [self._row("a X and a Y", asked.pairs(SOME), self._double)])

    def settings(self, title: str, asked: list[Question], kinds: dict[str, Settings]) -> Table:
        print(title, file=sys.stderr)
        return Table(
            title, [self._row(what, asked, self._single, kind) for what, kind in kinds.items()]
        )

    def seeds(self, asked: list[Question]) -> Table:
        """The same prompts by several seeds."""
        with _timed("seeds"):
            drawn = np.stack(
                [self._draw(asked, DEFAULT, 1000 * (1 + turn)) for turn in range(SEEDS)]
            )
            right = [
                [self._rank(match, question) == 0 for match, question in zip(m, asked, strict=True)]
                for m in map(self._gallery.match, drawn)
            ]
        values = drawn.astype(np.float32) / 255
        apart = [np.square(a - b).mean(axis=(1, 2, 3)) for a, b in combinations(values, 2)]
        scores = {
            "right by all": float(np.all(right, axis=0).mean()),
            "right": float(np.mean(right)),
            "RMS between pictures": float(np.sqrt(apart).mean()),
        }
        return Table("Seeds", [Row(f"{SEEDS} seeds a prompt", len(asked), scores)])

    def _row(
        self,
        what: str,
        asked: list[Question],
        judge: Callable[[list[Question], np.ndarray], dict[str, float]],
        settings: Settings = DEFAULT,
    ) -> Row:
        if not asked:
            return Row(what, 0, {})
        with _timed(f"{what}, {len(asked)} prompts"):
            return Row(what, len(asked), judge(asked, self._draw(asked, settings)))

    def _draw(self, asked: list[Question], settings: Settings, offset: int = 0) -> np.ndarray:
        first = self._seed + offset
        seeds = list(range(first, first + len(asked)))
        return draw(self._pipeline, [question.prompt for question in asked], seeds, settings)

    def _single(self, asked: list[Question], pictures: np.ndarray) -> dict[str, float]:
        matches = self._gallery.match(pictures)
        pairs = list(zip(matches, asked, strict=True))
        ranks = np.array([self._rank(match, question) for match, question in pairs])
        scores = {"top-1": float((ranks == 0).mean()), "top-5": float((ranks < 5).mean())}
        if asked[0].background is not None:
            right = np.array([match.background == question.background for match, question in pairs])
            scores["background"] = float(right.mean())
            scores["both"] = float((right & (ranks == 0)).mean())
        return scores

    def _double(self, asked: list[Question], pictures: np.ndarray) -> dict[str, float]:
        right = np.array(
            [
                max(self._found(matches, question), self._found(matches[::-1], question))
                for matches, question in zip(self._gallery.match_two(pictures), asked, strict=True)
            ]
        )
        return {"both": float((right == 2).mean()), "one or both": float((right >= 1).mean())}

    def _found(self, matches: tuple[Match, ...], question: Question) -> int:
        """How many of the things are right, in this order."""
        pairs = zip(matches, question.things, strict=True)
        return sum(self._gallery.rank_of_name(match, thing.concept) == 0 for match, thing in pairs)

    def _rank(self, match: Match, question: Question) -> int:
        thing: Thing = question.things[0]
        if question.exact:
            return self._gallery.rank_of_key(match, thing)
        return self._gallery.rank_of_name(match, thing.concept)


def vae_table(model: Path, icons: dict[str, Icon], limit: int | None) -> Table:
    """Of drawings on white, 96 x 96, encoded and decoded in float32: those never trained on."""
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", dtype=torch.float32)
    with _timed("vae"):
        unseen = [_on_white(icons[name]) for name in held_out_artwork(icons)[:limit]]
        decibels = [_psnr(picture, _decoded(vae, picture)) for picture in unseen]
        black = [_on_white(icons[name]) for name in BLACK]
        masks = [picture.max(axis=2) < 64 for picture in black]
        decoded = [_decoded(vae, p)[mask] for p, mask in zip(black, masks, strict=True)]
    scores = {
        "mean, dB": float(np.mean(decibels)),
        "median": float(np.median(decibels)),
        "5th percentile": float(np.percentile(decibels, 5)),
        "worst": float(np.min(decibels)),
    }
    return Table(
        "VAE, artwork it never saw",
        [
            Row("PSNR", len(decibels), scores),
            Row(
                "black areas, mean of 0..255",
                len(black),
                {
                    "decoded": float(np.mean(np.concatenate(decoded))),
                    "true": float(
                        np.mean(np.concatenate([p[m] for p, m in zip(black, masks, strict=True)]))
                    ),
                },
            ),
        ],
    )


def _on_white(icon: Icon) -> np.ndarray:
    return compose([render(icon, 192)], [Placed(96, 0, 0)], "FFFFFF", 96, 96)


@torch.inference_mode()
def _decoded(vae: AutoencoderKL, picture: np.ndarray) -> np.ndarray:
    """After encoding; uint8 [height, width, 3]."""
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    decoded = vae(pixels).sample[0]
    levels = ((decoded.clamp(-1, 1) + 1) * 127.5).round()
    return np.asarray(levels.permute(1, 2, 0)).astype(np.uint8)


def _psnr(truth: np.ndarray, picture: np.ndarray) -> float:
    error = np.square(truth.astype(np.float64) - picture).mean() / 255**2
    return float(-10 * np.log10(max(error, 1e-10)))


def _everyday(concepts: dict[str, Concept]) -> Iterator[tuple[str, Concept]]:
    return ((name, concept) for name, concept in concepts.items() if concept.everyday)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
