"""``clippy evaluate`` from the command line to its files, with a tiny real model behind it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.core import TyperOption
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.commands.results_folder import results_folder
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.evaluation.result import Document
from clippy_cli.locks import hold_folder
from clippy_cli.model.store import save_model
from tests.conftest import REPOSITORY
from tests.fixtures.benchmark_trees import write_set


@pytest.fixture
def run(nano, tmp_path, monkeypatch):
    save_model(nano, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPPY_DATA", raising=False)

    def evaluate(*arguments, model=("model",)):
        models = [part for source in model for part in ("--model", source)]
        outcome = CliRunner().invoke(app, ["evaluate", *map(str, arguments), *models, "--device", "cpu"])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome

    return evaluate


@pytest.fixture
def data(tmp_path):
    """A folder with a tiny VOC of four photos: the mask of one is cut short, that of another has another size."""
    root = tmp_path / "data"
    masks = {f"photo_{index}": np.full((40, 60), 1 + index, np.uint8) for index in range(4)}
    folder = write_set(root, "voc", masks)
    damaged = folder / "SegmentationClass" / "photo_1.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    other = write_set(tmp_path / "other", "voc", {"photo_2": np.full((40, 50), 3, np.uint8)})
    (other / "SegmentationClass" / "photo_2.png").replace(folder / "SegmentationClass" / "photo_2.png")
    return root


def test_a_profile_names_the_encoder_and_the_rest_and_changes_no_figure(run):
    arguments = ("scenes", "--limit", "4", "--task", "segment")
    plain, profiled = run(*arguments, "--out", "a"), run(*arguments, "--profile", "--precision", "fp32", "--out", "b")
    assert "encoder" not in plain.stderr
    for stage in ("load model", "texts", "encoder", "measure", "report", "other"):
        assert stage in profiled.stderr
    first, second = (json.loads(Path(name, "result.json").read_text())["results"][0] for name in "ab")
    assert first["metrics"] == second["metrics"] and second["model"]["precision"] == "fp32"


def test_figures_protocol_and_files(run):
    outcome = run("scenes", "--limit", "4", "--task", "segment,group", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    assert "mIoU" in outcome.stdout and "Jaccard (Hungarian, per image)" in outcome.stdout
    assert "whole image" in outcome.stdout and "4 of 200 images" in outcome.stdout
    text = Path("out/result.json").read_text(encoding="utf-8")
    document = Document.model_validate_json(text)
    segment, group = document.results
    assert (segment.data.images, segment.model.name, len(segment.classes)) == (4, "clippy-nano", 16)
    assert segment.protocol["templates"] == "none" and group.protocol["groups"] == 8
    for result in document.results:
        assert len(Path("out", result.images_file).read_text().splitlines()) == 4
    written = {path.name for path in Path("out").iterdir() if not path.name.startswith(".")}
    assert written == {"result.json", "report.html", "report.md", "images"}
    assert "data:image/jpeg" in Path("out/report.html").read_text(encoding="utf-8")
    assert Path("out/report.md").read_text().count("\n") == 3
    again = json.loads(run("scenes", "--limit", "4", "--task", "segment,group", "--out", "again", "--json").stdout)
    assert [result["metrics"] for result in again["results"]] == [result.metrics for result in document.results]


def test_broken_images_are_counted_named_and_left_out(run, data):
    outcome = run("voc", "voc20", "--data-root", data, "--task", "segment", "--out", "out")
    assert outcome.exit_code == 3, outcome.output
    for result in json.loads(Path("out/result.json").read_text())["results"]:
        assert result["data"]["images"] == 2 and len(result["data"]["failed"]) == 2
        assert "photo_1.png" in result["data"]["failed"][0] and "differ in size" in result["data"]["failed"][1]
    (data / "VOCdevkit/VOC2012/JPEGImages/photo_0.jpg").unlink()
    (data / "VOCdevkit/VOC2012/SegmentationClass/photo_3.png").write_bytes(b"")
    outcome = run("voc", "--data-root", data, "--task", "segment", "--out", "out")
    assert outcome.exit_code == 1 and "4 could not be used" in outcome.stdout and "mIoU –" in outcome.stdout


def test_several_models_side_by_side_and_compared(run, nano, tmp_path):
    assert run("scenes", "--limit", "3", "--task", "segment", "--out", "a").exit_code == 0
    both = run("scenes", "--limit", "3", "--task", "segment", "--out", "b", "--templates", "photo", model=["model"] * 2)
    assert both.exit_code == 0 and len(json.loads(Path("b/result.json").read_text())["results"]) == 1
    compared = CliRunner().invoke(app, ["compare", "a/result.json", "b/result.json"])
    assert compared.exit_code == 0, compared.output
    assert "95 % interval" in compared.stdout and "templates: none and photo" in compared.stdout
    alias = CliRunner().invoke(app, ["evaluate", "--compare", "a/result.json", "b/result.json"])
    assert alias.stdout == compared.stdout and "This is clippy compare now" in alias.stderr
    document = json.loads(CliRunner().invoke(app, ["compare", "a", "a", "--json"]).stdout)
    (pair,) = document["pairs"]
    assert (pair["interval"]["low"], pair["interval"]["high"]) == (0.0, 0.0)


def test_the_list_says_what_is_there_and_where_the_rest_was_looked_for(run, data):
    outcome = CliRunner().invoke(app, ["sets", "--data-root", str(data)])
    assert outcome.exit_code == 0, outcome.output
    lines = {line.split()[0]: line for line in outcome.stdout.splitlines() if line.strip()}
    assert "VOCdevkit/VOC2012" in lines["voc"] and " 4 " in lines["voc"]
    assert "missing" in lines["cityscapes"] and "generated" in lines["scenes"]
    alias = CliRunner().invoke(app, ["evaluate", "--list", "--data-root", str(data)])
    assert alias.stdout == outcome.stdout and "This is clippy sets now" in alias.stderr
    few = CliRunner().invoke(app, ["sets", "voc", "scenes", "--data-root", str(data), "--json"])
    assert [(one["name"], one["images"]) for one in json.loads(few.stdout)["sets"]] == [("scenes", 200), ("voc", 4)]
    document = json.loads(CliRunner().invoke(app, ["sets", "--json"]).stdout)
    assert document["data_root"] is None and {"ade20k", "bsds500", "imagenet"} <= {s["name"] for s in document["sets"]}


def test_a_missing_set_is_fetched_before_it_is_listed_or_evaluated(run, data, monkeypatch):
    fetched = []

    def download(name, root):
        fetched.append(name)
        (data / "VOCdevkit").replace(root / "VOCdevkit")

    monkeypatch.setattr("clippy_cli.data.benchmarks.catalogue.download", download)
    for name, arguments in (("a", ["sets", "voc", "--json"]), ("b", ["evaluate", "voc", "--task", "group"])):
        root = Path(name)
        root.mkdir()
        more = ["--model", "model", "--device", "cpu", "--limit", "1"] if arguments[0] == "evaluate" else []
        outcome = CliRunner().invoke(app, [*arguments, "--download", "--data-root", name, *more])
        assert outcome.exit_code == 0, outcome.output
        (root / "VOCdevkit").replace(data / "VOCdevkit")
    assert fetched == ["voc", "voc"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sets", "vox"], "did you mean 'voc'"),
        (["sets", "--download"], "needs the names"),
        (["sets", "voc", "--download"], "CLIPPY_DATA"),
        (["sets", "bsds500", "--download", "--data-root", "."], "has no downloader"),
        (["compare", "none.json", "model"], "no such file"),
    ],
)
def test_mistakes_of_sets_and_compare_are_explained(run, arguments, says):
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 1 and says in outcome.stderr.replace("\n", " ")


def test_an_own_set_in_a_few_lines(run, tmp_path):
    write_set(tmp_path / "data", "voc", {"a": np.full((40, 60), 1, np.uint8)})
    Path("mine.yaml").write_text(
        "title: Mine\n"
        "images: data/VOCdevkit/VOC2012/JPEGImages/{}.jpg\n"
        "masks: data/VOCdevkit/VOC2012/SegmentationClass/{}.png\n"
        "classes: [cat, dog]\n"
        "background: cat\n"
    )
    outcome = run("mine.yaml", "--task", "segment", "--background", "0.9", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    (result,) = json.loads(Path("out/result.json").read_text())["results"]
    assert result["data"]["name"] == "mine" and result["protocol"]["background"].startswith("pixels below probability")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "No data set is named"),
        (["vox"], "did you mean 'voc'"),
        (["voc"], "CLIPPY_DATA"),
        (["voc", "--data-root", "model"], "VOCtrainval_11-May-2012.tar"),
        (["scenes", "--patches", "fancy"], "plain, centred, shared"),
        (["scenes", "--patches", "centred"], "holds no mean patch"),
        (["scenes", "--task", "retrieve"], "no captions"),
        (["scenes", "--task", "segmnt"], "did you mean 'segment'"),
        (["scenes", "--protocol", "slcip"], "did you mean 'sclip'"),
        (["scenes", "--method", "magic"], "pca, kmeans, spectral"),
        (["scenes", "--stride", "8"], "--stride needs windows"),
        (["scenes", "--groups", "900", "--limit", "1"], "Lower --groups"),
        (["a", "b", "c", "--compare"], "takes two results"),
        (["none.json", "model", "--compare"], "no such file"),
    ],
)
def test_mistakes_are_explained(run, arguments, says):
    outcome = run(*arguments)
    assert outcome.exit_code == 1
    assert says in outcome.stderr.replace("\n", " ") and "Traceback" not in outcome.output


@pytest.mark.slow
def test_ctrl_c_leaves_a_journal_and_the_same_command_goes_on(nano, tmp_path):
    save_model(nano, tmp_path / "model")
    command = [sys.executable, "-m", "clippy_cli", "evaluate", "scenes", "--model", "model", "--batch-size", "4"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    settings = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    stopped = subprocess.Popen([*command, "--out", "stopped"], **settings)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("stopped/unfinished/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == 130 and "continues from what was counted" in errors, errors
    assert not (tmp_path / "stopped" / "result.json").exists()
    again = subprocess.run([*command, "--out", "stopped"], timeout=120, **settings)
    whole = subprocess.run([*command, "--out", "whole"], timeout=120, **settings)
    assert again.returncode == whole.returncode == 0 and "images were counted before" in again.stderr
    for file in (tmp_path / "whole" / "images").iterdir():
        assert (tmp_path / "stopped" / "images" / file.name).read_bytes() == file.read_bytes()


def test_the_flags_are_these():
    commands = typer.main.get_group(app).commands
    flags = {
        name: {option for parameter in commands[name].params for option in parameter.opts}
        for name in ("evaluate", "sets", "compare")
    }
    assert flags["sets"] == {"names", "--data-root", "--download", "--json"}
    assert flags["compare"] == {"a", "b", "--json"}
    assert flags["evaluate"] == {
        "datasets", "--data-root", "--suite", "--model", "--task", "--protocol", "--resolution",
        "--window", "--stride", "--window-average",
        "--scales", "--flip", "--refine", "--regions", "--dense", "--proxy",
        "--templates", "--background", "--patches", "--positions", "--pool-prefix",
        "--groups", "--method", "--clusters", "--limit", "--batch-size",
        "--workers", "--device", "--seed", "--out", "--overwrite", "--worst-first", "--list", "--download",
        "--compare", "--json", "--exif", "--strict",
        "--precision", "--compile", "--no-cache", "--profile",
    }  # fmt: skip


def test_every_flag_of_evaluate_that_is_shown_has_a_panel():
    shown = [
        parameter
        for parameter in typer.main.get_group(app).commands["evaluate"].params
        if isinstance(parameter, TyperOption) and not parameter.hidden
    ]
    hidden = {"--list", "--download", "--compare"}
    assert not hidden & {option for parameter in shown for option in parameter.opts}
    assert [parameter.name for parameter in shown if parameter.rich_help_panel is None] == []


def test_results_are_never_replaced_unasked_nor_written_by_two(run):
    arguments = ["scenes", "--limit", "2", "--task", "segment"]
    for expected in ("evaluate", "evaluate-2"):
        assert run(*arguments).exit_code == 0 and Path("clippy_out", expected, "result.json").is_file()
    kept = Path("clippy_out/evaluate/result.json").read_bytes()
    unfinished = Path("clippy_out/evaluate-3/unfinished/command.txt")
    unfinished.parent.mkdir(parents=True)
    unfinished.write_text("clippy evaluate something else\n", encoding="utf-8")
    assert run(*arguments).exit_code == 0 and Path("clippy_out/evaluate-4/result.json").is_file()
    assert Path("clippy_out/evaluate/result.json").read_bytes() == kept
    Path("mine").mkdir()
    Path("mine/report.md").write_text("my notes", encoding="utf-8")
    refused = run(*arguments, "--out", "mine")
    assert refused.exit_code == 1 and "report.md: not written by clippy" in refused.output
    assert run(*arguments, "--out", "mine", "--overwrite").exit_code == 0
    assert run(*arguments, "--out", "mine").exit_code == 0  # its own by now
    with hold_folder(Path("mine"), "clippy evaluate"):
        refused = run(*arguments, "--out", "mine")
    assert refused.exit_code == 1 and f"in use by clippy evaluate (process {os.getpid()} on" in refused.output
    Path("blocked").mkdir()
    Path("blocked/images").touch()
    refused = run(*arguments, "--out", "blocked")
    assert refused.exit_code == 1 and "images: not written by clippy" in refused.output


def test_a_default_folder_in_use_is_passed_over_unless_the_same_command_works_there(tmp_path):
    default = tmp_path / "evaluate"
    with hold_folder(default, "clippy evaluate"), results_folder(None, default, (), work="clippy evaluate") as second:
        assert second == tmp_path / "evaluate-2"
    again = results_folder(None, default, (), work="clippy evaluate", continues=lambda folder: folder == default)
    with hold_folder(default, "clippy evaluate"), pytest.raises(ClippyError, match="in use"), again:
        pass


def test_a_suite_measures_what_is_there_and_names_what_is_missing(run, data):
    Path("pair.yaml").write_text(
        "title: a pair\ntask: segment\nmetric: miou\nsets: {scenes: S, context59: C59}\n", encoding="utf-8"
    )
    outcome = run("--suite", "pair.yaml", "--limit", "4", "--data-root", data, "--out", "out")
    assert outcome.exit_code == 3, outcome.output
    assert "Not measured, so that there is no average: context59" in outcome.stdout
    document = Document.model_validate_json(Path("out/result.json").read_text(encoding="utf-8"))
    assert document.suite is not None
    (row,) = document.suite.rows
    assert row.values == (document.results[0].metrics["miou"], None) and row.average is None
    assert "| model | S | C59 | average |" in Path("out/suite.md").read_text(encoding="utf-8")
    assert r"\toprule" in Path("out/suite.tex").read_text(encoding="utf-8")
    refused = run("scenes", "--suite", "pair.yaml", "--data-root", data)
    assert refused.exit_code == 1 and "scenes was given too" in refused.output


def test_what_was_not_used_of_a_set_is_said_written_and_refused_by_strict(run, data):
    folder = data / "VOCdevkit" / "VOC2012"
    mine = folder / "mine.yaml"
    mine.write_text("title: t\nimages: JPEGImages/{}.jpg\nmasks: SegmentationClass/{}.png\nclasses: [a, b, c, d, e]\n")
    for number in (1, 2):
        (folder / "JPEGImages" / f"photo_{number}.jpg").replace(folder / "JPEGImages" / f"photo_{number}.JPG")
    white = np.full((40, 60), 255, np.uint8)
    Image.fromarray(white).save(folder / "SegmentationClass" / "photo_3.png")
    outcome = run(mine, "--out", "out", "--task", "segment", model=("model", "model"))
    assert outcome.exit_code == ExitCode.PARTIAL
    assert outcome.stderr.count("2 photos skipped: fits none of the patterns") == 1
    document = Document.model_validate_json(Path("out/result.json").read_text())
    assert [(notice.kind, notice.unit, notice.count) for notice in document.notices] == [
        ("skipped", "photo", 2),
        ("assumed", "mask", 2),  # class a is in none of them
        ("assumed", "mask", 1),
    ]
    assert document.results[0].data.notices == document.notices
    lines = Path("out", document.results[0].images_file).read_text().splitlines()
    assert ["notices" in json.loads(line) for line in lines] == [False, True]
    refused = run(mine, "--out", "strict", "--strict")
    assert refused.exit_code == ExitCode.FAILED and "photo_1.JPG" in refused.stderr
    assert not Path("strict").exists()


def test_the_exif_rule_is_part_of_the_protocol(run, data):
    outcome = run("voc", "--data-root", data, "--task", "segment", "--limit", "1", "--exif", "ignore", "--out", "out")
    assert outcome.exit_code == 0, outcome.output
    document = Document.model_validate_json(Path("out/result.json").read_text())
    assert document.results[0].protocol["exif"] == "ignore"
    assert run("voc", "--data-root", data, "--exif", "maybe").exit_code == ExitCode.USAGE
