"""The public Python interface: its examples run, what it takes and refuses, and what results say and show."""

import doctest
import io
import json
import shutil
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

import clippy_cli as clippy
from clippy_cli import api
from clippy_cli.reporting.model_choice import ModelChoice
from tests.conftest import REPOSITORY
from tests.fixtures.colour_model import ColourModel


def flag():
    """(48,64,3): red on the left, blue on the right."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:, 32:, 2] = 255
    return pixels


@pytest.fixture
def clip():
    return api.Clip(ModelChoice(ColourModel(), "colours"))


LOAD_ONCE = cache(api.load)  # one model for all examples
HALVES = np.repeat([[1] * 32 + [2] * 32], 48, axis=0)


@pytest.mark.parametrize(
    "module",
    [
        *("clippy_cli", "api", "clip", "errors", "reporting.results", "reporting.answers", "reporting.embeddings"),
        *("bulk.parts", "commands.bulk_run"),
    ],
)
def test_examples_run(module, monkeypatch, tmp_path):
    monkeypatch.setattr(api, "load", LOAD_ONCE)
    monkeypatch.chdir(tmp_path)
    target = import_module("clippy_cli" if module == "clippy_cli" else f"clippy_cli.{module}")
    failed, tried = doctest.testmod(target)
    assert tried > 0 and failed == 0


def test_every_public_name_is_documented_with_an_example():
    for name in clippy.__all__:
        if name == "__version__":
            continue
        thing = getattr(clippy, name)
        assert ">>>" in (thing.__doc__ or "") or any(
            ">>>" in (getattr(thing, method).__doc__ or "") for method in vars(thing) if not method.startswith("_")
        ), f"clippy.{name} has no example"


def test_importing_the_package_loads_nothing_heavy():
    probe = "import sys, clippy_cli; dir(clippy_cli); print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        clippy.nothing  # noqa: B018


def test_every_form_of_a_photo_gives_the_same_mask(clip, tmp_path):
    pixels = flag()
    path = tmp_path / "flag.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for photo in (path, str(path), Image.open(path), pixels, tensor, tensor / 255, tensor.double() / 255):
        seg = clip.segment(photo, ["red|crimson", "blue"], refine="none")
        np.testing.assert_array_equal(seg.mask, HALVES)
    np.testing.assert_array_equal(clip.segment(pixels, "red,blue").mask, HALVES)  # commas as on the command line


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        (np.zeros((48, 64), np.uint8), r"\(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), r"\(48, 64, 4\)"),
        (np.zeros((48, 64, 3), np.float32), "float32"),
        (np.zeros((0, 64, 3), np.uint8), "empty"),
        (torch.zeros(48, 64, 3), r"\(48, 64, 3\)"),
        (torch.full((3, 8, 8), 2.0), "not in"),
        (torch.full((3, 8, 8), float("nan")), "not in"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
        (b"\xff\xd8", "bytes"),
        (None, "NoneType"),
        ("nowhere.jpg", "no such file"),
    ],
)
def test_what_is_no_photo_is_refused_with_a_hint(clip, photo, says):
    with pytest.raises(clippy.ClippyError, match=says) as raised:
        clip.image(photo)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ([], {}, "No label"),
        (["red", 3], {}, "must be text"),
        (["red", "Red"], {}, "twice"),
        (["red"], {"background": ["red"]}, "twice"),
        (["red"], {"threshold": 1.5}, "threshold"),
        (["red"], {"min_area": -1}, "min_area"),
        (["red"], {"refine": "sharp"}, "sharp"),
        (["red"], {"resolution": 0}, "resolution"),
        (["red"], {"scales": [1, 1]}, "different factors"),
        (["red"], {"stride": 8}, "stride"),
        (["red"], {"templates": "foto"}, "photo"),
        (["red"], {"regions": np.zeros((3, 3), int)}, "3x3"),
        (["red"], {"regions": np.zeros((48, 64))}, "float64"),
    ],
)
def test_wrong_options_are_explained(clip, labels, options, says):
    with pytest.raises(clippy.ClippyError, match=says):
        clip.segment(flag(), labels, **options)
    if "regions" not in options:  # and before the first result of many
        with pytest.raises(clippy.ClippyError, match=says):
            clip.segment_many([flag()], labels, **options)


def test_an_unknown_option_is_a_type_error(clip):
    with pytest.raises(TypeError, match="refinement"):
        clip.segment(flag(), ["red"], refinement="guided")


def test_a_photo_is_encoded_once_and_asked_often(clip):
    photo = clip.image(flag())
    photo.segment(["red", "blue"])
    assert photo.group(1).labels == ("group 1",)
    assert photo.segment(["red"], threshold=0.5, refine="none").shares.tolist() == [0.5]
    assert len(clip.model.batches) == 1
    assert photo.patches.shape == (6, 8, 3)
    assert photo.classify(["red", "green"]).best == "red"


def test_a_photo_that_fails_is_a_value(clip, tmp_path):
    names = ["a", "missing", "b"]
    for name in ("a", "b"):
        Image.fromarray(flag()).save(tmp_path / f"{name}.png")
    results = list(clip.segment_many([tmp_path / f"{name}.png" for name in names], ["red", "blue"]))
    assert [type(result).__name__ for result in results] == ["Segmentation", "Failure", "Segmentation"]
    assert results[1].source.endswith("missing.png") and "no such file" in results[1].error.message


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself, under NumPy 2
def test_a_segmentation_says_what_it_is(clip):
    seg = clip.segment(flag(), ["red", "blue", "green"], background=["white"], refine="none")
    assert seg.labels == ("red", "blue", "green") and seg.unlabelled == 0
    np.testing.assert_array_equal(seg.shares, [0.5, 0.5, 0])
    assert np.isnan(seg.scores[2]) and seg.scores[0] > 0.9
    np.testing.assert_array_equal(seg["red"], HALVES == 1)
    with pytest.raises(clippy.ClippyError, match="no label 'yellow'"):
        seg["yellow"]
    assert np.asarray(seg.cutout("blue"))[0, :, 3].tolist() == [0] * 32 + [255] * 32
    document = json.loads(json.dumps(seg.to_coco()))
    assert [entry["name"] for entry in document["categories"]] == ["red", "blue", "green"]
    assert [entry["area"] for entry in document["annotations"]] == [32 * 48] * 2
    rle = document["annotations"][0]["segmentation"]
    np.testing.assert_array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), HALVES == 1)
    assert seg.settings["labels"] == {"red": ["red"], "blue": ["blue"], "green": ["green"]}
    assert "red 50.0%" in repr(seg)


def test_results_show_themselves_in_a_notebook(clip):
    shown = [
        clip.segment(flag(), ["<b>red</b>", "blue"]),
        clip.group(flag(), 2),
        clip.classify(flag(), ["red", "blue"]),
    ]
    for result in shown:
        with Image.open(io.BytesIO(result._repr_png_())) as picture:
            assert picture.format == "PNG" and picture.width >= 64
        html = result._repr_html_()
        assert "data:image/jpeg;base64," in html and "<table>" in html and "<b>" not in html


def test_regions_are_numbers_or_files_and_debug_explains_the_mask(clip, tmp_path):
    regions = np.zeros((48, 64), np.int64)
    regions[:, :40] = 7
    seg = clip.segment(flag(), ["red|crimson", "blue"], regions=regions, refine="none")
    assert seg.by_region is not None and seg.by_region.shares.tolist() == [0.625, 0.375]
    assert clip.image(flag()).segment(["red", "blue"], regions=regions).by_region.shares.tolist() == [0.625, 0.375]
    files = seg.save(tmp_path, ["mask", "debug"], stem="flag")
    assert set(files) == {"mask", "debug", "+regions"}
    explained = json.loads((tmp_path / "flag_debug" / "debug.json").read_text())
    assert explained["grid"] == {"rows": 6, "columns": 8}
    assert explained["prompts"]["crimson"] == ["a photo of a crimson"]
    first = explained["best_texts"][0][0]
    assert [entry["text"] for entry in first] == ["red", "crimson", "blue"] and first[0]["cosine"] == pytest.approx(1)
    with pytest.raises(clippy.ClippyError, match="cannot save 'masks'"):
        seg.save(tmp_path, ["masks"])


def test_photos_in_memory_do_not_replace_each_others_results(clip, tmp_path):
    first, second = (clip.segment(flag()[:, ::step], ["red", "blue"]) for step in (1, -1))
    mask = Path(first.save(tmp_path, ["mask"])["mask"])
    first.save(tmp_path, ["mask"])  # the same photo
    before = mask.read_bytes()
    with pytest.raises(clippy.ClippyError, match="made from a photo in memory") as refused:
        second.save(tmp_path, ["mask"])
    assert "stem" in refused.value.hint and mask.read_bytes() == before
    assert second.save(tmp_path, ["mask"], stem="second")["mask"] == str(tmp_path / "second_mask.png")
    for stem in ("../out", str(tmp_path.parent / "out")):
        with pytest.raises(clippy.ClippyError, match="leads out of"):
            second.save(tmp_path, ["mask"], stem=stem)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "limit must be a whole number from 1, not 0"),
        ({"limit": float("nan")}, "limit"),
        ({"seed": -1}, "seed"),
        ({"changes": {"resolution": 0}}, "resolution"),
        ({"changes": {"scales": [float("nan")]}}, "scales"),
    ],
)
def test_numbers_that_measure_nothing_are_refused(options, says):
    with pytest.raises(clippy.ClippyError, match=says):
        clippy.evaluate("scenes", **options)


@pytest.mark.slow
def test_the_readmes_python_runs_as_written_on_a_real_photo(real_data, monkeypatch, tmp_path):
    """The block as it stands, on a photo of VOC; the evaluation sees fewer photos, the training makes fewer steps."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = readme.split("```python\n")[1].split("```")[0]
    assert "clippy.load()" in block and "clippy.evaluate" in block and "clippy.train" in block
    block = block.replace('data_root="~/data"', f'data_root="{real_data}", limit=4')
    block = block.replace('{"train.steps": 200}', '{"train.steps": 4, "train.warmup_steps": 1, "train.batch_size": 8}')
    monkeypatch.chdir(tmp_path)
    shutil.copy(next((real_data / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg")), "photo.jpg")
    names: dict[str, Any] = {"paths": ["photo.jpg", "missing.jpg"]}
    exec(block, names)  # the project's own README
    assert names["seg"]["dog"].shape == names["seg"].mask.shape == names["photo"].pixels.shape[:2]
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {
        "photo.json",
        "photo_mask.png",
        "photo_overlay.png",
    }
    assert isinstance(names["result"], clippy.Failure)
    assert clippy.load("runs/mine").name == "quickstart"
