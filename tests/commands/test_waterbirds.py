"""``clippy waterbirds`` and ``build`` from the command line to their files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model.store import save_model
from clippy_cli.waterbirds.measure.result import BirdDocument
from tests.fixtures.bird_trees import write_objects, write_places, write_waterbirds
from tests.fixtures.commands import COMMANDS

ROWS = [(bird, split, place) for split in (0, 1, 2) for bird in (0, 1) for place in (0, 1) for _ in range(2)]


@pytest.fixture
def run(nano, tmp_path, monkeypatch):
    save_model(nano, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPPY_DATA", raising=False)

    def invoke(*arguments):
        outcome = CliRunner().invoke(app, ["waterbirds", *map(str, arguments)])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome

    return invoke


@pytest.fixture
def data(tmp_path):
    write_waterbirds(tmp_path / "data" / "waterbird_complete95_forest2water2", ROWS)
    return tmp_path / "data"


def test_tables_files_and_sweep(run, data):
    outcome = run("--data-root", data, "--model", "model", "--resolutions", "64,96", "--device", "cpu", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    assert "worst group" in outcome.stdout and "8 of 5,794 images" in outcome.stdout
    assert "published, not comparable" in outcome.stdout and "GroupDRO (supervised) worst group 91.4" in outcome.stdout
    document = BirdDocument.model_validate_json(Path("out/waterbirds.json").read_text(encoding="utf-8"))
    assert [(r.readout, r.resolution) for r in document.results] == [
        ("pooled", 64), ("patch", 64), ("pooled", 96), ("patch", 96),
    ]  # fmt: skip
    assert document.train_counts == (2, 2, 2, 2) and document.data.subset
    page = Path("out/waterbirds.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page and "data:image/png" in page and "GroupDRO" in page
    assert Path("out/sweep.png").is_file() and Path("out/sweep.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_demonstration_needs_no_data(run):
    outcome = run("--demo", "--model", "model", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    assert "says nothing about photos" in outcome.stdout and "drift" in outcome.stdout
    assert "says nothing about photos" in Path("out/waterbirds.html").read_text(encoding="utf-8")
    assert Path("out/analysis/analysis.html").is_file()
    again = run("--demo", "--model", "model", "--out", "out")
    assert again.exit_code == 0, again.output


def test_a_broken_image_is_counted_and_named(run, data):
    (image,) = data.glob("*/*/Bird_0016.jpg")
    image.write_bytes(image.read_bytes()[:60])
    outcome = run("--data-root", data, "--model", "model", "--resolution", "64", "--out", "out", "--json")
    assert outcome.exit_code == 3
    document = json.loads(outcome.stdout)
    assert document["data"]["images"] == 7 and "Bird_0016.jpg" in document["data"]["failed"][0]


def test_a_set_of_ones_own_is_built_and_measured_under_its_own_names(run, tmp_path):
    write_objects(tmp_path / "pets", ["cat", "dog"] * 10)
    write_places(tmp_path / "rooms", 20, ("garden", "[red]"))
    built = run("build", "--birds", "pets", "--backgrounds", "rooms", "--out", "set", "--strength", "0.5")
    assert built.exit_code == 0, built.output
    assert "cat on garden" in built.stdout and "dog on [red]" in built.stdout
    outcome = run("--data-root", "set", "--model", "model", "--resolution", "64", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    assert "on [red]" in outcome.stdout and "words: cat, dog, background" in outcome.stdout
    assert "on [red]" in Path("out/waterbirds.html").read_text(encoding="utf-8")
    assert "GroupDRO" not in Path("out/waterbirds.html").read_text(encoding="utf-8")
    again = run("build", "--birds", "pets", "--backgrounds", "rooms", "--out", "set", "--strength", "0.9")
    assert again.exit_code == 1 and "Traceback" not in again.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data-root", "model"], "clippy waterbirds build"),
        ([], "CLIPPY_DATA"),
        (["--resolutions", "64,big"], "--resolutions cannot be"),
        (["--resolutions", "64", "--resolution", "32"], "Leave one of them out"),
        (["--demo", "--data-root", "model"], "Leave one of them out"),
        (["--model", "none"], "none"),
    ],
)
def test_mistakes_are_explained(run, arguments, says):
    outcome = run(*arguments)
    assert outcome.exit_code == 1
    assert says in outcome.stderr.replace("\n", " ") and "Traceback" not in outcome.output


def test_the_flags_are_these():
    flags = {option for parameter in COMMANDS["waterbirds"].params for option in parameter.opts}
    assert flags == {
        "--data-root", "--model", "--split", "--resolution", "--resolutions", "--words", "--templates", "--limit",
        "--batch-size", "--workers", "--device", "--out", "--overwrite", "--demo", "--json", "--strict",
        "--no-cache",
    }  # fmt: skip
    built = {option for parameter in COMMANDS["waterbirds build"].params for option in parameter.opts}
    assert built == {"--birds", "--backgrounds", "--out", "--strength", "--seed", "--workers", "--json", "--strict"}
