"""The bundled model is complete, small, and an ordinary checkpoint."""

import json
from pathlib import Path

import msgspec
import numpy as np
import torch
from diffusers import DiffusionPipeline

from multimodal_gen.messages.model_info import Defaults, StatedLimits

MAX_BYTES = 16_000_000
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer.json",
    "tokenizer_2": "tokenizer.json",
}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_every_component_of_the_index_is_there(bundled_model: Path) -> None:
    index = json.loads((bundled_model / "model_index.json").read_text())
    components = {
        name for name, value in index.items() if not name.startswith("_") and value != [None, None]
    }
    assert {path.name for path in bundled_model.iterdir() if path.is_dir()} == components
    for name in components:
        assert (bundled_model / name / CONFIGS.get(name, "config.json")).is_file()
        assert name in CONFIGS or list((bundled_model / name).glob("*.safetensors"))


def test_it_is_under_16_megabytes(bundled_model: Path) -> None:
    assert sum(path.stat().st_size for path in files(bundled_model)) < MAX_BYTES


def test_it_holds_nothing_but_weights_and_text(bundled_model: Path) -> None:
    assert {path.suffix for path in files(bundled_model)} <= {
        ".safetensors",
        ".json",
        ".txt",
        ".md",
    }


def test_its_generation_defaults_are_known_parameters(bundled_model: Path) -> None:
    stated = msgspec.json.decode((bundled_model / "generation_defaults.json").read_bytes())
    limits = msgspec.convert(stated.pop("limits"), StatedLimits)
    assert (limits.smallest_side, limits.largest_side) == (96, 128)
    defaults = msgspec.convert(stated, Defaults)
    assert (defaults.width, defaults.height) == (96, 96)


def test_stock_diffusers_draws_a_red_heart_with_it(bundled_model: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(
        bundled_model, dtype=torch.float32, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    defaults = json.loads((bundled_model / "generation_defaults.json").read_text())
    del defaults["limits"]
    generator = torch.Generator("cpu").manual_seed(0)
    prompt = "a red heart on a white background"
    output = pipeline(prompt, **defaults, generator=generator, output_type="np")
    picture = output.images[0]
    ink = picture[picture.min(axis=-1) < 0.8]  # [N, 3], all that is not background
    assert 0.2 < len(ink) / (96 * 96) < 0.8
    red, green, blue = np.median(ink, axis=0)
    assert red > 0.8
    assert max(green, blue) < 0.5
