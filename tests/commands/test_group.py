"""``clippy group`` from the command line to the files."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from clippy_cli.app import app
from clippy_cli.errors import ExitCode
from clippy_cli.inference.choices import DEFAULT_GROUPS, GroupMethod


@pytest.mark.parametrize("method", GroupMethod)
def test_two_colours_are_two_groups(clippy, flag, method):
    outcome = clippy("group", flag(), "--groups", "2", "--method", method)
    assert outcome.code == 0
    assert "group 1" in outcome.stdout
    with Image.open("clippy_out/flag_groups_mask.png") as image:
        codes = np.asarray(image)
    left, right = np.unique(codes[:, :31]), np.unique(codes[:, 33:])
    assert len(left) == len(right) == 1
    assert (left != right) == (method != "pca")  # two colours span one component, and one centre takes all
    record = json.loads(Path("clippy_out/flag_groups.json").read_text())
    assert sum(region["share"] for region in record["regions"]) == pytest.approx(1)
    assert "score" not in record["regions"][0]
    with Image.open("clippy_out/flag_groups_pca.png") as picture:
        assert picture.size == (640, 480)
    assert Path("clippy_out/flag_groups_overlay.png").is_file()


def test_group_and_segment_keep_each_others_files(clippy, flag):
    path = flag()
    clippy("segment", path, "--labels", "red,blue")
    before = {file.name: file.read_bytes() for file in Path("clippy_out").glob("[!.]*")}
    clippy("group", path, "--groups", "2")
    assert all(Path("clippy_out", name).read_bytes() == content for name, content in before.items())
    clippy("group", path, "--groups", "3", "--save", "json")
    assert json.loads(Path("clippy_out-2/flag_groups.json").read_text())["groups"] == 3
    assert json.loads(Path("clippy_out/flag_groups.json").read_text())["groups"] == 2


def test_json_names_the_settings(clippy, flag):
    outcome = clippy("group", flag(), "--groups", "2", "--method", "kmeans", "--save", "none", "--json")
    document = outcome.document
    assert (document["method"], document["groups"], document["resolution"]) == ("kmeans", 2, 48)
    assert [region["name"] for region in document["images"][0]["regions"]] == ["group 1", "group 2"]


def test_more_groups_than_the_model_can_tell(clippy, flag):
    outcome = clippy("group", flag())
    assert outcome.code == ExitCode.FAILED
    assert "8 were asked for" in outcome.stderr


def test_the_flags_are_these():
    command = typer.main.get_group(app).commands["group"]
    parameters = {option: parameter for parameter in command.params for option in parameter.opts}
    assert set(parameters) == {
        *("images", "--groups", "--method", "--model", "--resolution", "--save", "--out", "--overwrite"),
        *("--batch-size", "--device", "--json", "--dense", "--proxy", "--positions", "--strict", "--profile"),
        *("--precision", "--compile"),
    }
    assert parameters["--groups"].default == DEFAULT_GROUPS
