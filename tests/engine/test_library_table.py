"""The table of diffusers' pipelines is that of the installed version."""

from __future__ import annotations

import ast
import inspect
import textwrap

import diffusers
import pytest

from multimodal_gen.configs.families.library_pipelines import LIBRARY_TABLE, TABLE
from multimodal_gen.runtime.pipelines.fallback.write_table import table_text

_READERS = ("from_pretrained", "load", "hf_hub_download", "snapshot_download", "urlopen", "exec")


def test_every_pipeline_of_the_installed_diffusers_runs_or_has_a_reason() -> None:
    names = {name for name in dir(diffusers) if name.endswith("Pipeline")}
    assert LIBRARY_TABLE.diffusers == diffusers.__version__
    assert LIBRARY_TABLE.pipelines.keys() | LIBRARY_TABLE.refused.keys() == names
    assert LIBRARY_TABLE.pipelines.keys() & LIBRARY_TABLE.refused.keys() == set()
    assert all(LIBRARY_TABLE.refused.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library, as its modules are imported
def test_the_table_is_written_by_its_script() -> None:
    assert table_text() == TABLE.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library, as its modules are imported
def test_no_pipeline_in_the_table_reads_files_while_it_runs() -> None:
    kinds = [getattr(diffusers, name) for name in LIBRARY_TABLE.pipelines]
    for owner in {owner for kind in kinds for owner in kind.__mro__}:
        if ".pipelines." not in owner.__module__ or owner.__module__.endswith("pipeline_utils"):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner)))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in _READERS, f"{owner.__name__}: {ast.unparse(node.func)}"
