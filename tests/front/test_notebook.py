"""A notebook, where a loop runs already and stderr is no file."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import multimodal_gen

CELLS = """
from multimodal_gen import DiffusionGenerator
generator = DiffusionGenerator.from_pretrained(device="cpu")
---
generator.generate("a red heart", num_inference_steps=2).images[0].size
---
(await generator.agenerate("a red heart", num_inference_steps=2)).images[0].size
---
len([event async for event in generator.astream("a red heart", num_inference_steps=50)]) > 1
---
generator.close()
"""


@pytest.mark.filterwarnings("default")  # the notebook's own libraries
def test_blocking_and_awaited_calls_work_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = str(Path(multimodal_gen.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", root)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS.split("---")]
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}})
    client.execute(env=dict(os.environ))
    shown = [cell.outputs[0]["data"]["text/plain"] for cell in notebook.cells[1:4]]
    assert shown == ["(96, 96)", "(96, 96)", "True"]
