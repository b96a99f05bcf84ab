"""Every kind of source through every command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clippy_cli.app import app

WORDED = (
    "tiny-vit",
    "tiny-rn",
    "tiny-timm",
    "clip",
    "siglip",
    "align",
    "groupvit",
    "dinotxt",
    "talk2dino",
    pytest.param("tiny-pe", marks=pytest.mark.slow),
    pytest.param("clip-dinoiser", marks=pytest.mark.slow),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPPY_DATA", raising=False)
    rng = np.random.default_rng(0)
    for name in ("photo.png", "kinds/dog/a.png", "kinds/cat/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(name)

    def clippy(*arguments):
        outcome = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu", "--json"])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome

    return clippy


def document(outcome):
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("name", WORDED)
def test_segment_group_classify_evaluate(run, source_of, name):
    small = ("--model", source_of(name), "--resolution", "64")
    segmented = document(run("segment", "photo.png", "--labels", "dog,grass", "--save", "none", *small))
    assert sum(region["share"] for region in segmented["images"][0]["regions"]) == pytest.approx(1, abs=1e-4)
    grouped = document(run("group", "photo.png", "--groups", "2", "--save", "none", *small))
    assert grouped["images"][0]["regions"]
    guesses = document(run("classify", "photo.png", "--labels", "dog,cat", "--model", source_of(name)))
    assert sum(guess["probability"] for guess in guesses["images"][0]["guesses"]) == pytest.approx(1)
    results = document(run("evaluate", "scenes", "kinds", "--limit", "2", "--groups", "2", *small))["results"]
    assert [result["task"] for result in results] == ["segment", "group", "classify"]
    assert not any(result["data"]["failed"] for result in results)


def test_image_only_model_groups_and_says_why_it_does_nothing_else(run, source_of, monkeypatch):
    small = ("--model", source_of("test_vit"), "--resolution", "64")
    assert document(run("group", "photo.png", "--groups", "2", "--save", "none", *small))["images"]
    results = document(run("evaluate", "scenes", "--task", "group", "--limit", "2", "--groups", "2", *small))
    assert [result["task"] for result in results["results"]] == ["group"]

    import clippy_cli.waterbirds.run  # noqa: F401  (imported while the function is another, it would keep that)

    def read(*_, **__):
        raise AssertionError("the model was loaded, or an image read")

    monkeypatch.setattr("clippy_cli.model.sources.timm_trunk.load_timm", read)
    monkeypatch.setattr("clippy_cli.data.images.read_image", read)
    for command in (
        ("segment", "photo.png", "--labels", "dog"),
        ("classify", "photo.png", "--labels", "dog"),
        ("evaluate", "scenes"),
        ("waterbirds", "--demo"),
    ):
        outcome = run(*command, *small)
        assert outcome.exit_code == 1
        assert "image-only trunk" in outcome.stderr and "--task group" in outcome.stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny-vit", ("--dense", "naclip")),
        ("tiny-deep", ("--dense", "resclip")),
        ("tiny-vit", ("--proxy", "test_vit")),
        ("tiny-timm", ("--dense", "sclip")),
        ("tiny-pe", ("--dense", "clearclip")),
        ("test_vit", ("--dense", "maskclip")),
    ],
)
def test_dense_modes_change_patches(run, source_of, name, options):
    options = [source_of(part) if part == "test_vit" else part for part in options]
    task = ("evaluate", "scenes", "--task", "group", "--limit", "1", "--groups", "2", "--resolution", "64")
    plain, other = (
        document(run(*task, "--model", source_of(name), "--out", out, *extra))["results"][0]["model"]
        for out, extra in (("plain", ()), ("other", options))
    )
    assert plain["fingerprint"] != other["fingerprint"]
    assert other["name"].startswith(plain["name"] + "+")


def test_models_lists_without_loading_anything(tmp_path):
    """The probe runs in a process of its own, since this one has loaded everything already."""
    probe = (
        "import sys; from typer.testing import CliRunner; from clippy_cli.app import app; "
        "outcome = CliRunner().invoke(app, ['models', '--json']); assert outcome.exit_code == 0, outcome.output; "
        "print(outcome.stdout); loaded = {'torch', 'timm', 'open_clip', 'transformers'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path)
    listed = {entry["source"]: entry for entry in json.loads(done.stdout)["models"]}
    assert listed["clippy-ti"]["at_hand"] and listed["timm:vit_small_patch16_224.dino"]["tasks"] == "group"
