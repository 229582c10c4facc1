"""The classes that a checkpoint may name are those of the families' tables, and no others."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules

import diffusers
import pytest

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.families.components import ComponentSpec, module
from multimodal_gen.configs.families.flux import FLUX
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.allowed import ALL_SCHEDULERS, ALLOWED, allowed_by
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import library_class

Checkpoints = Callable[..., Path]

COMPONENTS: list[ComponentSpec] = [
    component for family in FAMILIES for component in family.components.values()
]


def test_the_allow_list_is_exactly_what_the_tables_name() -> None:
    named = {(each.library, name) for each in COMPONENTS for name in each.classes}
    named |= {pair for family in FAMILIES for pair in family.unused}
    schedulers = {("diffusers", name) for name in ALL_SCHEDULERS}
    assert named.isdisjoint(schedulers)
    assert ALLOWED.keys() == named | schedulers


def test_no_table_names_code_of_another_library() -> None:
    used = {library for (library, _), kind in ALLOWED.items() if kind != "unused"}
    of_diffusers = {each.name for each in iter_modules(diffusers.pipelines.__path__) if each.ispkg}
    assert used - of_diffusers == {"diffusers", "transformers"}


def test_a_class_is_loaded_in_one_way_only() -> None:
    kinds = {(each.library, name, each.kind) for each in COMPONENTS for name in each.classes}
    kinds -= {(library, name, "native") for library, name, _ in kinds}  # as diffusers' for others
    assert len(kinds) == len({(library, name) for library, name, _ in kinds})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # by Kolors' text encoder
@pytest.mark.parametrize("kind", ["diffusers", "native", "transformers"])
def test_models_that_the_tables_name_are_classes_of_their_library(kind: str) -> None:
    of_kind = [each for each in COMPONENTS if each.kind == kind]
    named = {(each.library, name) for each in of_kind for name in each.classes}
    assert named
    assert {pair for pair in named if not isinstance(library_class(*pair), type)} == set()


def test_families_with_a_native_denoiser_are_those_whose_table_says_so() -> None:
    for family in FAMILIES:
        kinds = {component.kind for component in family.components.values()}
        assert ("native" in kinds) == (family.denoiser == "native"), family.name


def test_a_new_table_allows_its_classes() -> None:
    new = replace(FLUX, components={"vae": module("AutoencoderVidTok")})
    assert ("diffusers", "AutoencoderVidTok") not in ALLOWED
    assert allowed_by([new])["diffusers", "AutoencoderVidTok"] == "diffusers"


@pytest.mark.parametrize(
    "value",
    [
        ["diffusers", "AutoencoderVidTok"],
        ["transformers", "AutoModel"],
        ["transformers", "FluxTransformer2DModel"],
        ["os", "system"],
    ],
)
def test_a_class_that_no_table_names_is_refused(
    value: list[str], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": value}))
    with pytest.raises(InvalidCheckpoint, match=r"vae=.* is not an allowed class"):
        Checkpoint.open(folder)
