"""A family's table is found where it lies, and lists keep their order."""

from pathlib import Path

import pytest

from multimodal_gen.configs import families
from multimodal_gen.configs.families import FAMILIES, family_named, find_families

_NEW = """
from dataclasses import replace

from multimodal_gen.configs.families.pixart_sigma import PIXART_SIGMA

NEW_MODEL = replace(PIXART_SIGMA, name="new_model", pipeline_classes=("NewPipeline",))
"""


FIRST = [
    "flux",
    "flux_kontext",
    "flux_fill",
    "flux2",
    "z_image",
    "qwen_image",
    "qwen_image_edit",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_xl",
    "wan",
    "wan_image_to_video",
    "pixart_sigma",
    "sana",
    "hunyuan_video",
    "ltx",
    "cogvideox",
]


def test_the_order_of_families_is_kept() -> None:
    names = [family.name for family in FAMILIES]
    assert names[: len(FIRST)] == FIRST
    *others, last = names[len(FIRST) :]
    assert others == sorted(others)
    assert last == "fallback"


def test_a_familys_name_is_that_of_its_module() -> None:
    for family in FAMILIES:
        assert (Path(families.__path__[0]) / f"{family.name}.py").is_file()


def test_a_table_that_is_put_there_is_a_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new_model.py").write_text(_NEW)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    found = find_families(families.__path__)
    (new,) = (family for family in found if family not in FAMILIES)
    assert new.name == "new_model"
    assert found[-1].name == "fallback"
    monkeypatch.setattr(families, "FAMILIES", found)
    assert family_named("NewPipeline") is new
    assert new.module == "families.new_model"
