"""A notebook, where a loop runs already and stderr is no file: the one of the examples, and more
cells in its kernel."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Iterator
from html import escape
from typing import Any

import nbformat
import pytest
from engines import is_running
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from places import ROOT

FURTHER = {
    "blocking": 'generator.generate("a red heart", num_inference_steps=2).images[0].size',
    "awaited": '(await generator.agenerate("a red heart", num_inference_steps=2)).images[0].size',
    "streamed": """
len([event async for event in generator.astream("a red heart", num_inference_steps=50)]) > 1
""",
    "bar": 'generator.generate(["a dog", "a cat"], num_inference_steps=300)',
    "warned": """
result = generator.generate("a red heart " * 40, num_inference_steps=2)
[result.warnings[0].code, result.warnings[0].text]
""",
    "warned-again": 'generator.generate("a red heart " * 40, num_inference_steps=2)',
    "completed": """
from IPython.core.completer import provisionalcompleter

def completed(code):
    with provisionalcompleter():
        return [found.text for found in get_ipython().Completer.completions(code, len(code))]

[completed("generator.generate('a', num_inf"), completed("DiffusionGenerator.from_pretrained(lora")]
""",
    "processes": """
import psutil

[child.pid for child in psutil.Process().children(recursive=True)]
""",
}

pytestmark = pytest.mark.filterwarnings("default")  # the notebook's own libraries

Outputs = dict[str, list[Any]]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """Outputs of the cells, by their ids. The last of the example, which closes the generator, is
    left out: instead, the kernel is killed and started anew."""
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", 4)
    assert notebook.cells.pop().source == "generator.close()"
    further = (nbformat.v4.new_code_cell(code.strip(), id=name) for name, code in FURTHER.items())
    notebook.cells.extend(further)
    resources = {"metadata": {"path": tmp_path_factory.mktemp("notebook")}}
    client = NotebookClient(notebook, timeout=120, resources=resources)
    with client.setup_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)}):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        run_sync(client.km.restart_kernel)(now=True)
        yield {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def text_of(outputs: list[Any]) -> str:
    """What the cell's last line evaluates to."""
    return str(outputs[-1]["data"]["text/plain"])


def streams_of(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


@pytest.mark.parametrize(
    ("cell", "pictures"), [("one", 1), ("grid", 4), ("image", 1), ("mask", 1), ("seeds", 4)]
)
def test_the_example_shows_pictures(cell: str, pictures: int, cells: Outputs) -> None:
    shown = cells[cell][-1]["data"]["text/html"]
    assert shown.count('src="data:image/png;base64,') == pictures
    assert "array" not in text_of(cells[cell])
    assert len(text_of(cells[cell])) < 400


def test_the_example_shows_what_it_says(cells: Outputs) -> None:
    assert text_of(cells["load"]).startswith("bundled_model (flux)\n  device ")
    assert "data:image/png" in cells["stream"][-1]["data"]["text/html"]
    assert "did you mean num_inference_steps?" in streams_of(cells["mistake"])
    assert "a red heart 7 True\n" in streams_of(cells["save"])


def test_blocking_and_awaited_calls_work(cells: Outputs) -> None:
    shown = [text_of(cells[cell]) for cell in ("blocking", "awaited", "streamed")]
    assert shown == ["(96, 96)", "(96, 96)", "True"]


def test_a_bar_is_shown_below_the_cell_of_a_long_call(cells: Outputs) -> None:
    assert "/600" in streams_of(cells["bar"])


def test_a_warning_is_shown_once_below_the_cell_that_it_is_about(cells: Outputs) -> None:
    code, text = ast.literal_eval(text_of(cells["warned"]))
    assert code == "prompt_cut"
    assert f"{text}\n" in streams_of(cells["warned"])
    assert text not in streams_of(cells["warned-again"])
    assert escape(text) in cells["warned-again"][-1]["data"]["text/html"]


def test_keywords_are_completed(cells: Outputs) -> None:
    of_generate, of_from_pretrained = ast.literal_eval(text_of(cells["completed"]))
    assert of_generate == ["num_inference_steps="]
    assert "lora_dir=" in of_from_pretrained


def test_engines_end_when_the_kernel_is_killed_and_started_anew(cells: Outputs) -> None:
    pids = ast.literal_eval(text_of(cells["processes"]))
    assert len(pids) >= 2
    end = time.monotonic() + 30
    while any(map(is_running, pids)):
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.02)
