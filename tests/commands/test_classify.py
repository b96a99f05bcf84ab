"""``clippy classify`` from the command line."""

import csv
import io
from pathlib import Path

import pytest
import torch
import typer

from clippy_cli.app import app
from clippy_cli.errors import ExitCode


def test_the_best_labels_come_first(clippy, flag):
    path = flag(left=(255, 0, 0), right=(255, 0, 0))
    outcome = clippy("classify", path, "--labels", "blue,red|crimson,green", "--top-k", "2", "--json")
    assert outcome.code == 0
    guesses = outcome.document["images"][0]["guesses"]
    assert [guess["label"] for guess in guesses] == ["red", "blue"]
    expected = torch.tensor([10.0, 0.0, 0.0]).softmax(dim=0)
    assert [guess["probability"] for guess in guesses] == pytest.approx(expected[:2].tolist(), abs=1e-4)
    assert guesses[0]["score"] == pytest.approx(1, abs=1e-4)


def test_table_and_csv(clippy, flag):
    red, mixed = flag("red.png", right=(255, 0, 0)), flag("a, b.png", left=(0, 255, 0), right=(0, 255, 0))
    outcome = clippy("classify", red, mixed, "--labels", "red,green", "--csv", "out/table.csv")
    assert outcome.code == 0
    assert "probability" in outcome.stdout
    rows = list(csv.DictReader(io.StringIO(Path("out/table.csv").read_text())))
    assert [(row["image"], row["rank"], row["label"]) for row in rows] == [
        *(("a, b.png", "1", "green"), ("a, b.png", "2", "red")),
        *(("red.png", "1", "red"), ("red.png", "2", "green")),
    ]
    assert float(rows[0]["probability"]) + float(rows[1]["probability"]) == pytest.approx(1)


def test_a_csv_replaces_only_one_that_clippy_wrote_and_may_be_printed(clippy, flag):
    arguments = ("classify", flag("red.png", right=(255, 0, 0)), "--labels", "red,green", "--csv")
    assert [clippy(*arguments, "own.csv").code for _ in range(2)] == [0, 0]
    written = Path("own.csv").read_text()
    Path("own.csv").write_text(written.replace("red.png", "corrected.png"))
    for name, why in (("own.csv", "changed since clippy wrote it"), ("theirs.csv", "not written by clippy")):
        Path("theirs.csv").write_text("key,word\n")
        outcome = clippy(*arguments, name)
        assert outcome.code == 1 and f"{name}: {why}" in outcome.stderr and "--csv" in outcome.stderr
    assert Path("theirs.csv").read_text() == "key,word\n" and "corrected" in Path("own.csv").read_text()
    assert clippy(*arguments, "theirs.csv", "--overwrite").code == 0
    assert Path("theirs.csv").read_text() == written
    assert clippy(*arguments, "-", "--json").code == 1
    assert not Path("-").exists()


def test_many_images_take_a_line_each_and_a_bad_one_is_reported(clippy, flag):
    for name in "abcd":
        flag(f"photos/{name}.png", right=(255, 0, 0))
    Path("photos/e.png").write_bytes(b"")
    outcome = clippy("classify", "photos", "--labels", "red,green", "--top-k", "1")
    assert outcome.code == ExitCode.PARTIAL
    assert len(outcome.stdout.splitlines()) == 4
    assert all("red 100.0 %" in line for line in outcome.stdout.splitlines())
    assert "photos/e.png: the file is empty" in outcome.stderr


def test_a_profile_says_where_the_time_went(clippy, flag):
    document = clippy("classify", flag(), "--labels", "red,blue", "--json", "--profile").document
    assert {"load model", "texts", "decode", "encoder", "other"} <= {
        one["stage"] for one in document["profile"]["stages"]
    }
    printed = clippy("classify", flag(), "--labels", "red,blue", "--profile")
    assert "encoder" in printed.stderr and "encoder" not in printed.stdout


def test_the_flags_are_these():
    command = typer.main.get_group(app).commands["classify"]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {
        *("images", "--labels", "--top-k", "--templates", "--model", "--resolution", "--csv", "--batch-size"),
        *("--device", "--json", "--strict", "--overwrite", "--out", "--profile"),
        *("--precision", "--compile", "--no-cache"),
    }
