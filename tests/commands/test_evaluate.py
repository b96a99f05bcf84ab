"""``clippy evaluate`` from the command line to the report, with a real model behind it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model.store import save_model


@pytest.fixture
def run(nano, tmp_path, monkeypatch):
    save_model(nano, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPPY_DATA", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", *arguments, "--model", "model", "--device", "cpu"])


def test_scenes_are_measured_and_the_protocol_is_named(run):
    outcome = run("scenes", "--limit", "4", "--out", "results.json")
    assert outcome.exit_code == 0, outcome.output
    assert "mIoU" in outcome.stdout and "whole image" in outcome.stdout
    (result,) = json.loads(Path("results.json").read_text(encoding="utf-8"))["results"]
    assert (result["images"], result["model"], len(result["iou"])) == (4, "clippy-nano", 16)
    assert 0 <= result["miou"] <= 1
    again = json.loads(run("scenes", "--limit", "4", "--json").stdout)["results"][0]
    assert again == result
    plain = json.loads(run("scenes", "--limit", "4", "--json", "--patches", "plain").stdout)["results"][0]
    assert plain["images"] == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vox"], "did you mean 'voc'"),
        (["voc"], "CLIPPY_DATA"),
        (["voc", "--data-root", "model"], "VOCtrainval_11-May-2012.tar"),
        (["scenes", "--patches", "fancy"], "plain or centred"),
        (["scenes", "--patches", "centred"], "holds no mean patch"),
    ],
)
def test_mistakes_are_explained(run, arguments, says):
    outcome = run(*arguments)
    assert outcome.exit_code == 1
    assert says in outcome.stderr and "Traceback" not in outcome.output


def test_the_flags_are_these():
    command = typer.main.get_command(app).commands["evaluate"]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {
        "datasets", "--data-root", "--model", "--resolution", "--templates", "--patches", "--limit", "--out",
        "--batch-size", "--device", "--json",
    }  # fmt: skip
