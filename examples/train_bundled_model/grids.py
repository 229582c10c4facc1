"""Sample grids: what the model draws, with its prompts, as PNG files."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

from captions import article
from diffusers import FluxPipeline
from PIL import Image, ImageDraw, ImageFont
from sampling import DEFAULT, Settings, draw, load

EVERYDAY = (
    *("a red heart", "a car", "a dog", "a cat", "a pizza", "a house"),
    *("a tree", "a rocket", "a cup of coffee", "a smiley face", "the sun", "a book"),
    *("a banana", "a red apple", "a bicycle", "an airplane", "a fish", "a butterfly"),
    *("a guitar", "a soccer ball", "a birthday cake", "an umbrella", "a key", "a camera"),
    *("a rainbow", "a rose", "a hamburger", "an elephant", "a penguin", "a robot"),
    *("a ghost", "a crown", "a light bulb", "a sailboat", "a cactus", "a strawberry"),
)
SEEDED = ("a dog", "a car", "a rose", "a pizza", "a house", "an owl", "a guitar", "a rocket")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
COLORED = ("car", "umbrella", "balloon", "fish", "backpack", "book")
BACKGROUNDS = (
    *("a dog on a blue background", "a pizza on a green background"),
    *("a red heart on a black background", "a rocket on a yellow background"),
    *("a penguin on a pink background", "a rose on a gray background"),
    *("a cat on a purple background", "a tree on an orange background"),
)
PAIRS = (
    *("a dog and a pizza", "a cat and a house", "a car and a tree", "a rocket and a star"),
    *("a red apple and a banana", "a book and a key", "a fish and a guitar", "a frog and a crown"),
)
SIZED = ("a dog", "a rose", "a car", "a house")
SIZES = ((96, 96), (112, 112), (128, 128), (128, 96), (96, 128))
"""Width and height."""
SEEDS = 6

GAP, LINES, LETTERS = 8, 2, 10
"""Pixels between cells; lines of a label, and pixels of its letters."""
PAPER, INK, FRAME = (255, 255, 255), (40, 40, 40), (210, 210, 210)
PALETTE = 192


class Cell(NamedTuple):
    prompt: str
    seed: int
    settings: Settings = DEFAULT
    note: str = ""
    """What the label says besides the prompt."""


def write_grids(model: Path, folder: Path, rows: int | None) -> None:
    """All grids as PNG files in `folder`, which is made if need be; `rows` of each at most."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load(model)
    for name, (columns, cells) in _grids().items():
        shown = cells[: None if rows is None else rows * columns]
        labels = [cell.prompt + cell.note for cell in shown]
        grid = sheet(_drawn(pipeline, shown), labels, columns)
        # Flat colours: a palette of few is no loss, and a third of the bytes.
        grid.quantize(PALETTE, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


def _drawn(pipeline: FluxPipeline, cells: list[Cell]) -> list[Image.Image]:
    """Those of equal settings side by side."""
    drawn: dict[Cell, Image.Image] = {}
    for settings in dict.fromkeys(cell.settings for cell in cells):
        alike = [cell for cell in cells if cell.settings == settings]
        prompts, seeds = [cell.prompt for cell in alike], [cell.seed for cell in alike]
        pictures = draw(pipeline, prompts, seeds, settings)
        drawn |= zip(alike, map(Image.fromarray, pictures), strict=True)
    return [drawn[cell] for cell in cells]


def sheet(pictures: list[Image.Image], labels: list[str], columns: int) -> Image.Image:
    """Pictures in rows of `columns`, a label under each."""
    width = max(picture.width for picture in pictures) + GAP
    height = max(picture.height for picture in pictures) + GAP + LINES * (LETTERS + 2) + GAP
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    pen = ImageDraw.Draw(grid)
    font = ImageFont.load_default(LETTERS)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        pen.rectangle(
            (left - 1, top - 1, left + picture.width, top + picture.height), outline=FRAME
        )
        grid.paste(picture, (left, top))
        text = "\n".join(textwrap.wrap(label, (width - GAP) // (LETTERS // 2))[:LINES])
        pen.multiline_text((left, top + picture.height + 3), text, INK, font, spacing=2)
    return grid


def _grids() -> dict[str, tuple[int, list[Cell]]]:
    """By file: how many columns, and the cells."""
    colored = [f"{article(color)} {color} {noun}" for noun in COLORED for color in COLORS]
    seeded = [Cell(p, seed, note=f", seed {seed}") for p in SEEDED for seed in range(SEEDS)]
    sized = [
        Cell(prompt, seed, Settings(height=height, width=width), f", {width} x {height}")
        for width, height in SIZES
        for seed, prompt in enumerate(SIZED)
    ]
    return {
        "everyday": (6, _cells(EVERYDAY)),
        "seeds": (SEEDS, seeded),
        "colors": (len(COLORS), _cells(colored)),
        "backgrounds": (4, _cells(BACKGROUNDS)),
        "two_objects": (4, _cells(PAIRS)),
        "sizes": (len(SIZED), sized),
    }


def _cells(prompts: tuple[str, ...] | list[str]) -> list[Cell]:
    """With seeds from 0 on."""
    return [Cell(prompt, seed) for seed, prompt in enumerate(prompts)]
