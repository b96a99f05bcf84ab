"""``clippy waterbirds analyse`` from the command line to its files, with a tiny real model behind it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model.store import save_model
from clippy_cli.waterbirds.analyse.result import AnalysisDocument
from tests.fixtures.bird_trees import write_objects, write_places
from tests.fixtures.commands import COMMANDS


@pytest.fixture
def run(nano, tmp_path, monkeypatch):
    """The command on six cats and dogs and two folders of backgrounds, in an empty folder."""
    save_model(nano, tmp_path / "model")
    write_objects(tmp_path / "pets", ["cat", "dog"] * 3)
    write_places(tmp_path / "places", 3, folders=("street", "wood"))
    monkeypatch.chdir(tmp_path)

    def analyse(*arguments, model="model"):
        given = ["--birds", "pets", "--backgrounds", "places", "--model", model, "--device", "cpu", "--out", "out"]
        given += ["--objects", "6", "--scenes", "4", "--resolution", "32", *map(str, arguments)]
        outcome = CliRunner().invoke(app, ["waterbirds", "analyse", *given])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome

    return analyse


def figures(document):
    keys = ("drift", "drift_low", "drift_high", "class_share", "place_share", "object_share")
    return [result[key] for result in document["results"] for key in keys]


def test_table_files_and_figures(run):
    outcome = run()
    assert outcome.exit_code == 0, outcome.output
    assert "bird patches" in outcome.stdout and "6 objects on 4 backgrounds" in outcome.stdout
    text = Path("out/analysis.json").read_text(encoding="utf-8")
    document = AnalysisDocument.model_validate_json(text)
    assert [result.readout for result in document.results] == ["pooled", "bird patches"]
    assert (document.classes, document.places, document.failed) == (("cat", "dog"), ("street", "wood"), ())
    for result in document.results:
        assert (result.objects, result.backgrounds, result.object_chance) == (6, 4, 5 / 23)
        assert 0 < result.drift_low < result.drift < result.drift_high < 1
        assert result.class_share < result.object_share < 1 and 0 < result.place_share < 1
    names = {"analysis.json", "analysis.html", "embeddings_clippy-nano.png", "embeddings_clippy-nano.svg"}
    assert {path.name for path in Path("out").glob("[!.]*")} == names
    with Image.open("out/embeddings_clippy-nano.png") as picture:
        assert picture.size[0] > 1000
    page = Path("out/analysis.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1 and "http" not in page.partition("</style>")[2]
    alone = json.loads(run("--batch-size", "1", "--json").stdout)
    assert figures(alone) == pytest.approx(figures(json.loads(text)), abs=1e-5)
    other = json.loads(run("--method", "tsne", "--seed", "1", "--json").stdout)
    assert other["settings"]["picture"] == "t-SNE" and figures(other) != figures(alone)


def test_broken_files_are_named_and_left_out(run):
    Path("pets/images/dog_1.png").write_bytes(b"")
    outcome = run()
    assert outcome.exit_code == 3, outcome.output
    assert "skipped" in outcome.stderr and "dog_1.png" in outcome.stderr
    document = AnalysisDocument.model_validate_json(Path("out/analysis.json").read_text(encoding="utf-8"))
    assert len(document.failed) == 1 and {result.objects for result in document.results} == {5}
    assert "dog_1.png" in Path("out/analysis.html").read_text(encoding="utf-8")
    Path("pets/images/dog_3.png").write_bytes(b"")
    outcome = run()
    assert outcome.exit_code == 1 and "3 cat, 1 dog could be used" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "umap"), "pca, tsne"),
        (("--birds", "places"), "holds no cut-out objects"),
        (("--backgrounds", "pets/images"), "holds no backgrounds"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_wrong_arguments_are_explained_before_any_work(run, arguments, says):
    outcome = run(*arguments)
    assert outcome.exit_code == 1 and says in outcome.stderr
    assert not Path("out").exists()


def test_the_flags_are_these():
    command = COMMANDS["waterbirds analyse"]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {
        "--birds",
        "--backgrounds",
        "--out",
        "--overwrite",
        "--model",
        "--objects",
        "--scenes",
        "--resolution",
        "--method",
        "--seed",
        "--batch-size",
        "--workers",
        "--device",
        "--json",
        "--strict",
    }
