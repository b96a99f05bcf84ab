"""The model in the box: that it loads alone, and that its published figures come from these weights."""

import json
import re

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.registry import shipped_models

TOLERANCE = 0.005  # half a point: the card's rounding, and the kernels of another CPU
ROWS = {"voc20": "VOC20, background ignored: mIoU", "voc": "VOC21, 39 context words count as background: mIoU"}


def figure_of_the_card(row: str) -> tuple[int, float]:
    """Images and mIoU in [0, 1] that the model card states in one row of its table, for this model."""
    card = (shipped_models()[DEFAULT_MODEL] / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^\| {re.escape(row)} \| (\d+) \| \*\*([\d.]+)\*\* \|", card, re.MULTILINE)
    return int(found[0]), float(found[1]) / 100


def test_it_ships_within_its_limit():
    folder = shipped_models()[DEFAULT_MODEL]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_model_cards_figures(real_data, tmp_path, name):
    images, miou = figure_of_the_card(ROWS[name])
    command = ["evaluate", name, "--task", "segment", "--data-root", str(real_data), "--device", "cpu"]
    outcome = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--json"])
    assert outcome.exit_code == 0, outcome.output
    (result,) = json.loads(outcome.stdout)["results"]
    assert result["data"]["images"] == images
    assert result["metrics"]["miou"] == pytest.approx(miou, abs=TOLERANCE)
