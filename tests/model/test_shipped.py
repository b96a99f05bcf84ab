"""The model in the box: that it loads alone, and that its published figures come from these weights."""

import json

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.registry import shipped_models


def test_it_ships_within_its_limit():
    folder = shipped_models()[DEFAULT_MODEL]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60_000_000


@pytest.mark.slow
def test_the_model_cards_figures(real_data, tmp_path):
    command = ["evaluate", "voc", "voc20", "--task", "segment", "--data-root", str(real_data)]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    voc21, voc20 = json.loads(result.stdout)["results"]
    assert voc20["metrics"]["miou"] >= 0.28 and voc21["metrics"]["miou"] >= 0.17
