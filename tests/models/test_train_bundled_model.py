"""The script that trains the bundled model: its parts, and a tiny run from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from places import ROOT
from safetensors.torch import load_file
from torch import Tensor, nn

SCRIPT = ROOT / "examples" / "train_bundled_model"
REGISTRY = "https://registry.npmjs.org"


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a test import the script's modules, which are nobody else's afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPT)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SCRIPT)):
            del sys.modules[name]


def icon(body: str) -> Any:
    from artwork import Icon

    return Icon("thing", "x", "Objects", ("stuff",), body, (0, 0, 32, 32))


BODY = (
    '<path fill="#F8312F" d="M4 4h24v24H4z"/><path fill="#CA0B4A" d="M4 22h24v6H4z"/>'
    '<path fill="#FFFFFF" d="M8 8h4v4H8z"/>'
)


def test_recolouring_moves_the_main_fill_and_its_shades_and_nothing_else() -> None:
    from recolor import recolor

    body = recolor(icon(BODY), "blue")
    assert "#F8312F" not in body
    assert "#CA0B4A" not in body
    assert "#FFFFFF" in body


def test_a_recoloured_drawing_is_of_the_colour_asked_for() -> None:
    from artwork import render
    from recolor import COLORS, recolor
    from scenes import rgb

    for color in ("green", "blue", "purple", "black"):
        drawn = render(icon(BODY), 32, recolor(icon(BODY), color))
        middle = drawn[18, 18, :3].astype(int)
        assert np.abs(middle - rgb(COLORS[color][1:])).max() <= 8


def test_no_word_means_two_concepts() -> None:
    concepts = json.loads((SCRIPT / "concepts.json").read_text())
    words = [word for name, entry in concepts.items() for word in (name, *entry.get("also", ()))]
    assert len(words) == len(set(words))


def test_held_out_pairs_are_of_objects_that_come_in_colours() -> None:
    from concepts import RECOLORS

    colors = json.loads((SCRIPT / "colors.json").read_text())
    assert len(colors["held_out"]) >= 20
    for name, color in colors["held_out"]:
        entry = colors["objects"][name]
        assert color in RECOLORS
        assert color not in (entry.get("native"), *entry.get("skip", ()))


def concept(**changes: Any) -> Any:
    from concepts import Concept

    fields: dict[str, Any] = {
        "icon": icon(BODY),
        "also": ("thingy",),
        "lone": ("gadget",),
        "everyday": True,
        "paired": True,
        "mirror": True,
        "noun": "widget",
        "native": "red",
        "main": None,
        "colors": ("blue", "green"),
        "held_out": ("black",),
    }
    return Concept(**{**fields, **changes})


def test_a_strong_background_and_a_colour_are_always_said() -> None:
    from captions import Captions, Scene, Thing

    captions = Captions({"thing": concept()}, ["qwerty"])
    rng = np.random.default_rng(0)
    for _ in range(50):
        said = captions.draw(Scene((Thing("thing", "blue"),), "pink"), rng)
        assert "blue widget" in said
        assert "pink background" in said


def test_scenes_never_show_a_colour_that_is_held_out() -> None:
    from drawing import Artist

    artist = Artist({"thing": concept(), "other": concept(colors=())})
    rng = np.random.default_rng(0)
    scenes = [artist.imagine(96, 96, rng).scene for _ in range(300)]
    shown = {thing.color for scene in scenes for thing in scene.things}
    assert shown == {None, "blue", "green"}


@pytest.mark.parametrize("size", [(96, 96), (128, 128), (96, 128), (128, 96), (112, 112)])
def test_things_stand_apart_and_within_the_picture(size: tuple[int, int]) -> None:
    from drawing import Artist

    artist, rng = Artist({"thing": concept()}), np.random.default_rng(0)
    height, width = size
    for _ in range(200):
        drawn = artist.imagine(height, width, rng)
        for place in drawn.places:
            assert min(place.left, place.top) >= 0
            assert place.left + place.size <= width
            assert place.top + place.size <= height
        assert len({(place.left, place.top) for place in drawn.places}) == len(drawn.places)


def test_a_drawing_is_retrieved_wherever_it_stands() -> None:
    from artwork import render
    from retrieval import Gallery
    from scenes import Placed, compose

    other = icon('<circle cx="16" cy="16" r="14" fill="#00D26A"/>')
    concepts = {"thing": concept(), "other": concept(icon=other, colors=("blue",), held_out=())}
    gallery = Gallery(concepts)
    for name in concepts:
        drawing = render(concepts[name].icon, 160)
        pictures = [
            compose([drawing], [Placed(64, 8, 24)], "FFFFFF", 96, 96),
            compose([drawing], [Placed(80, 16, 0, tilt=8.0)], "ACD8FF", 96, 128),
        ]
        for picture in pictures:
            (match,) = gallery.match(picture[None])
            assert gallery.nearest(match)[0] == (name, None)


def test_a_background_is_told_in_every_shade_of_it() -> None:
    from artwork import render
    from retrieval import Gallery
    from scenes import BACKGROUNDS, Placed, compose, shade_of

    gallery = Gallery({"thing": concept(colors=(), held_out=())})
    drawing, place = render(icon(BODY), 160), Placed(64, 16, 16)
    for word in BACKGROUNDS:
        shades = [shade_of(word, lightness) for lightness in np.linspace(0, 1, 9)]
        pictures = np.stack([compose([drawing], [place], shade, 96, 96) for shade in shades])
        assert {match.background for match in gallery.match(pictures)} == {word}


@pytest.mark.parametrize("causal", [False, True])
def test_plain_attention_is_torchs(causal: bool) -> None:
    from attention import plain_attention

    query, key, value = torch.randn(3, 2, 4, 7, 8).unbind(0)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    torch.testing.assert_close(plain_attention(query, key, value, is_causal=causal), expected)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    from trainer import orthogonalised

    torch.manual_seed(0)
    for shape in ((2, 24, 48), (3, 48, 24)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_latents_are_packed_as_flux_packs_them() -> None:
    from latents import packed

    latents = torch.randn(2, 16, 12, 16)
    expected = FluxPipeline._pack_latents(latents, 2, 16, 12, 16)
    assert torch.equal(packed(latents), expected)


class Line:
    """A stage: fits y = 2 x."""

    name = "line"

    def __init__(self) -> None:
        from trainer import Rates

        self.module: nn.Module = nn.Linear(1, 1)
        self.rates = Rates(muon=0.01, adam=0.05)

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool:
        return False

    def loss(self, step: int, share: float, rng: np.random.Generator) -> tuple[Tensor, int]:
        x = torch.from_numpy(rng.standard_normal((16, 1))).float()
        return (self.module(x) - 2 * x).square().mean(), 16


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    from trainer import Trainer, trained

    Trainer(Line(), tmp_path, 0, 1).train(0.02)
    first, kept = progress(tmp_path), load_file(tmp_path / "checkpoint.safetensors")
    stage = Line()
    again = Trainer(stage, tmp_path, 0, 1)
    assert torch.equal(stage.module.weight, kept["weights:weight"])
    again.train(first["seconds"] / 60 + 0.03)
    assert progress(tmp_path)["step"] > first["step"]
    assert progress(tmp_path)["seconds"] > first["seconds"]
    assert trained(tmp_path)["weight"].shape == (1, 1)


def progress(folder: Path) -> Any:
    return json.loads((folder / "progress.json").read_text())


def registry_answers() -> bool:
    try:
        with urllib.request.urlopen(REGISTRY, timeout=10):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not registry_answers(), reason="the npm registry can't be reached")
@pytest.mark.slow
def test_a_reduced_run_goes_from_packages_to_a_model_that_diffusers_loads(tmp_path: Path) -> None:
    out = tmp_path / "model"
    command = [sys.executable, str(SCRIPT), "--reduced", "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [*command, "--out", str(out), "--grids", str(tmp_path / "grids")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "| names | 1 |" in done.stdout
    assert "denoiser: " in done.stderr
    assert "Fluent Emoji" in (out / "README.md").read_text()
    assert "Microsoft" in (out / "NOTICE.txt").read_text()
    assert list((tmp_path / "grids").glob("*.png"))
    pipeline = FluxPipeline.from_pretrained(out, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    call = {"width": 96, "height": 96, "num_inference_steps": 2, "max_sequence_length": 16}
    assert pipeline("a red heart", **call).images[0].size == (96, 96)
