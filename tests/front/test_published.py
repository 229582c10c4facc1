"""Published checkpoints: what is told agrees with their families, the tests and the README."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest
from places import ROOT
from published_facts import counts, defaults, sizes
from published_layouts import LAYOUTS
from tried_forms import tried

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.published import (
    MILLION,
    PublishedModel,
    defaults_of,
    published_models,
)
from multimodal_gen.entrypoints.cli.checkpoint.published_memory import FORMS, weight_memory
from multimodal_gen.entrypoints.cli.main import main

PUBLISHED = [(family, model) for family in FAMILIES for model in published_models(family)]
IDS = [model.name for _, model in PUBLISHED]
SMALL = {"PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}


def _named(name: str) -> FamilyConfig:
    return next(family for family in FAMILIES if family.name == name)


def test_every_family_has_a_published_checkpoint() -> None:
    without = [family.name for family in FAMILIES if not published_models(family)]
    assert not without, f"published.json and published_layouts.py lack {without}: add-a-model.md"


def test_a_checkpoint_is_listed_once_and_its_layout_is_known() -> None:
    assert max(Counter(IDS).values()) == 1
    assert LAYOUTS.keys() == {*IDS}, "published.json and published_layouts.py differ"


@pytest.mark.parametrize(("family", "model"), PUBLISHED, ids=IDS)
def test_what_is_told_fits_its_family(family: FamilyConfig, model: PublishedModel) -> None:
    own = family.denoiser == "fallback"
    assert (model.pipeline is not None) == (model.title is not None) == own
    assert model.pipeline is None or model.pipeline in family.pipeline_classes
    assert own or model.weights.keys() <= family.components.keys()
    assert all(0 <= count.quantized <= count.all for count in model.weights.values())
    assert all(count.all for count in model.weights.values())


@pytest.mark.parametrize(("family", "model"), PUBLISHED, ids=IDS)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about their own classes
def test_steps_and_size_are_the_defaults_of_a_checkpoint_with_its_configs(
    family: FamilyConfig, model: PublishedModel, tmp_path: Path
) -> None:
    found = defaults(family, model.name, model.pipeline, tmp_path)
    assert sizes(defaults_of(family, model)) == sizes(found)


@pytest.mark.parametrize(("family", "model"), PUBLISHED, ids=IDS)
def test_the_forms_that_are_told_are_those_that_tests_compare(
    family: FamilyConfig, model: PublishedModel
) -> None:
    told = "python tests/helpers/published_facts.py writes what the tests compare"
    assert model.tried == tried(model.name), told
    assert "folder" in model.tried, "no test compares a checkpoint of this layout with diffusers"


@pytest.mark.parametrize(
    ("family", "model"),
    [
        pytest.param(
            *each, id=each[1].name, marks=() if each[1].name in SMALL else pytest.mark.slow
        )
        for each in PUBLISHED
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about their own classes
def test_the_numbers_of_weights_are_those_of_its_modules(
    family: FamilyConfig, model: PublishedModel
) -> None:
    told = {name: [count.all, count.quantized] for name, count in model.weights.items()}
    assert told == counts(family, model.name)


def test_memory_counts_all_weights_and_what_one_phase_needs() -> None:
    family = _named("wan")
    (model,) = (each for each in published_models(family) if "T2V-A14B" in each.name)
    numbers = {name: count.all * MILLION for name, count in model.weights.items()}
    found = weight_memory(family, model, 16)
    assert found is not None
    assert found.whole == 2 * sum(numbers.values())
    assert found.at_once == 2 * (numbers["transformer"] + numbers["vae"])


def test_a_call_of_the_library_needs_all_at_once() -> None:
    for family, model in PUBLISHED:
        if family.in_one_call:
            found = weight_memory(family, model, 8)
            assert found is not None
            assert found.at_once == found.whole


def test_what_is_not_known_has_no_memory() -> None:
    assert weight_memory(_named("flux"), PublishedModel(name="a/b"), 16) is None


def test_fewer_bits_take_less_but_not_for_what_stays_exact() -> None:
    family = _named("flux")
    model = published_models(family)[0]
    sizes = [found.whole for bits in FORMS if (found := weight_memory(family, model, bits))]
    assert sizes == sorted(sizes, reverse=True)
    exact = sum(count.all - count.quantized for count in model.weights.values())
    assert (
        sizes[1]
        == sum(c.quantized + 2 * (c.all - c.quantized) for c in model.weights.values()) * MILLION
    )
    assert sizes[2] > 2 * exact * MILLION


def test_the_list_fits_120_columns_and_tells_memory_and_license(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    (line,) = (line for line in lines if line.startswith("z_image "))
    told = "t2i i2i inpaint 2 1024×1024 8 21 11 6.7 apache-2.0"
    assert line.split()[1:] == told.split()


def test_a_family_s_page_tells_each_published_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "--family", "ltx2"]) == 0
    said = capsys.readouterr().out
    assert "  Lightricks/LTX-2\n    license          ltx-2-community-license-agreement\n" in said
    assert "    memory           67 GB in 16 bits (40 at once), 38 in 8, 25 in 4\n" in said
    assert main(["models", "--family", "sana"]) == 0
    assert "    license          see its model card\n" in capsys.readouterr().out


def test_the_readme_has_the_tables_that_the_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_hooks"))
    text = (ROOT / "README.md").read_text()
    made = importlib.import_module("write_readme").with_tables(text)
    assert text == made, "python docs/_hooks/write_readme.py renews them"
    assert "| FLUX.1 |" in text
