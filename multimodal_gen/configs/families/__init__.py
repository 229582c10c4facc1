"""Static facts about each model family, known before weights are loaded. No torch here.

A module `NAME.py` in this folder with a `FamilyConfig` called `NAME` in capitals is a family.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.errors import InvalidCheckpoint

__all__ = ["FAMILIES", "FamilyConfig", "family_named", "find_families"]

_NO_FAMILIES = ("components", "family", "library_pipelines", "published", "single_file", "table")
_FIRST = (
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
)
"""Order of lists, and of the layouts tried for single files; other families follow by name, and the
fallback is last."""


def find_families(folders: Iterable[str]) -> tuple[FamilyConfig, ...]:
    """Find the families whose modules are in these folders of this package, in list order."""
    return tuple(sorted(_tables(folders), key=_place))


def _tables(folders: Iterable[str]) -> Iterator[FamilyConfig]:
    for module in iter_modules(folders):
        if module.name not in _NO_FAMILIES:
            table = getattr(import_module(f"{__name__}.{module.name}"), module.name.upper())
            assert isinstance(table, FamilyConfig)
            yield table


def _place(family: FamilyConfig) -> tuple[bool, int, str]:
    known = family.name in _FIRST
    place = _FIRST.index(family.name) if known else len(_FIRST)
    return family.name == "fallback", place, family.name


FAMILIES: tuple[FamilyConfig, ...] = find_families(__path__)


def family_named(pipeline_class: str, index: str = "model_index.json") -> FamilyConfig:
    """Family of this class in the file `index`. Raises InvalidCheckpoint."""
    for family in FAMILIES:
        if pipeline_class in family.pipeline_classes:
            return family
        if pipeline_class in family.refused_classes:
            reason = family.refused_classes[pipeline_class]
            raise InvalidCheckpoint(f"{index}: {pipeline_class}: {reason}")
    known = [name for family in FAMILIES for name in family.pipeline_classes]
    usual = [family.pipeline_classes[0] for family in FAMILIES]
    like = get_close_matches(pipeline_class, known) or [*usual, "…"]
    raise InvalidCheckpoint(
        f"{index}: _class_name={pipeline_class!r} is not known; known are {', '.join(like)}"
    )
