"""The notebooks of docs/ run as written, on a CPU and offline, and show pictures."""

import base64
import io
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import REPOSITORY

NOTEBOOKS = REPOSITORY / "docs" / "notebooks"
OFFLINE = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
SECONDS = 300  # for one cell


def executed(path: Path, scratch: Path) -> nbformat.NotebookNode:
    """The notebook after all its cells ran in a kernel of its own; CellExecutionError where one raises."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    places = {"IPYTHONDIR": str(scratch), "JUPYTER_RUNTIME_DIR": str(scratch)}
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(scratch)}}
    )
    client.execute(env={**os.environ, **OFFLINE, **places})
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[Image.Image]:
    """What its cells show as image/png, decoded."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    encoded = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(png))) for png in encoded]


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {"segment"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment"])
def test_notebook_runs_and_shows_pictures(name: str, tmp_path: Path) -> None:
    notebook = executed(NOTEBOOKS / f"{name}.ipynb", tmp_path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [output for output in cell.outputs if output.output_type == "error"], cell.source
    shown = pictures(notebook)
    assert shown, "a notebook without a picture"
    for picture in shown:
        assert min(picture.size) >= 100
        assert any(low < high for low, high in picture.convert("RGB").getextrema()), "a picture of one color"
