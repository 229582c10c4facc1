"""How the classes of families are made."""

import importlib
import inspect

import pytest

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


def pipeline_class(family: FamilyConfig) -> type[ComposedPipeline]:
    module = importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}")
    kind: type[ComposedPipeline] = module.PIPELINE
    return kind


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_inherits_from_the_composed_pipeline_or_from_one_sibling(
    family: FamilyConfig,
) -> None:
    kind = pipeline_class(family)
    between = kind.__mro__[1 : kind.__mro__.index(ComposedPipeline)]
    assert all(len(each.__bases__) == 1 for each in (kind, *between))
    assert len(between) <= 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_answers_every_question(family: FamilyConfig) -> None:
    assert not inspect.isabstract(pipeline_class(family))
