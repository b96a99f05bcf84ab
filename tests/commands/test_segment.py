"""``clippy segment`` from the command line to the files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from pycocotools import mask as coco

from clippy_cli.app import app
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.reporting.masks import write_mask
from clippy_cli.reporting.results import Segmentation

HALVES = np.repeat([[1] * 32 + [2] * 32], 48, axis=0)


def read_mask(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself, under NumPy 2
def test_every_pixel_gets_its_label(clippy, flag):
    outcome = clippy("segment", flag(), "--labels", "red|crimson,blue,green")
    assert outcome.code == 0
    assert "red" in outcome.stdout
    assert "50.0 %" in outcome.stdout
    assert "no pixel: green" in outcome.stdout
    np.testing.assert_array_equal(read_mask("clippy_out/flag_mask.png"), HALVES)
    record = json.loads(Path("clippy_out/flag.json").read_text())
    assert (record["width"], record["height"], record["unlabelled"]) == (64, 48, 0.0)
    assert record["labels"]["red"] == ["red", "crimson"]
    assert [region["share"] for region in record["regions"]] == [0.5, 0.5, 0.0]
    assert [region["box"] for region in record["regions"]] == [[0, 0, 32, 48], [32, 0, 32, 48], None]
    probability = record["regions"][0]["score"]
    assert 0.9 < probability < np.exp(10) / (np.exp(10) + 2)
    rle = record["regions"][1]["rle"]
    np.testing.assert_array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), HALVES == 2)
    with Image.open("clippy_out/flag_overlay.png") as overlay:
        assert overlay.height > overlay.width * 48 // 64  # the legend has its own room
    assert sorted(path.name for path in Path("clippy_out").glob("[!.]*")) == [
        "flag.json",
        "flag_mask.png",
        "flag_overlay.png",
    ]


def test_background_words_and_thresholds_leave_pixels_unlabelled(clippy, flag):
    path = flag()
    clippy("segment", path, "--labels", "red", "--background", "blue,green", "--save", "mask", "--out", "words")
    np.testing.assert_array_equal(read_mask("words/flag_mask.png"), HALVES % 2)
    clippy("segment", path, "--labels", "red", "--threshold", "0.5", "--save", "mask", "--out", "cosine")
    np.testing.assert_array_equal(read_mask("cosine/flag_mask.png"), HALVES % 2)
    clippy("segment", path, "--labels", "red,blue", "--threshold", "1", "--save", "mask", "--out", "nothing")
    assert not read_mask("nothing/flag_mask.png").any()


def test_one_label_alone_gives_a_hint(clippy, flag):
    outcome = clippy("segment", flag(), "--labels", "red")
    assert "100.0 %" in outcome.stdout
    assert "--background" in outcome.stderr


def test_json_is_all_there_is_on_stdout(clippy, flag):
    path = flag()
    outcome = clippy("segment", path, "missing.png", "--labels", "blue,red", "--save", "none", "--json")
    assert outcome.code == ExitCode.PARTIAL
    document = outcome.document
    assert document["images"][0]["image"] == str(path)
    assert document["images"][0]["files"] == {}
    assert document["failed"][0]["image"] == "missing.png"
    assert "missing.png: no such file" in outcome.stderr
    assert not Path("clippy_out").exists()
    assert clippy("segment", path, "missing.png", "--labels", "blue,red", "--save", "none", "--json") == outcome


@pytest.mark.parametrize("command", [["segment", "--labels", "red,blue"], ["group", "--groups", "2"]])
def test_a_profile_says_where_the_time_went(clippy, flag, command):
    path = flag()
    document = clippy(command[0], path, *command[1:], "--json", "--profile").document["profile"]
    stages = {stage["stage"]: stage for stage in document["stages"]}
    assert {"load model", "decode", "encoder", "label map", "overlay", "mask", "JSON", "other"} <= set(stages)
    assert document["photos"] == 1 and 0 < document["encoder_share"] == stages["encoder"]["share"] < 1
    printed = clippy(command[0], path, *command[1:], "--profile", "--out", "again")
    assert "encoder" in printed.stderr and "encoder" not in printed.stdout


def test_a_file_that_cannot_be_written_ends_the_run(clippy, flag, monkeypatch):
    for name in "abcdef":
        flag(f"photos/{name}.png")
    begun = []

    def full(path, codes):
        begun.append(path.name)
        if path.name == "b_mask.png":
            raise ClippyError("The disk is full.")
        return write_mask(path, codes)

    monkeypatch.setattr("clippy_cli.reporting.writers.write_mask", full)
    outcome = clippy("segment", "photos", "--labels", "red,blue", "--batch-size", "1", "--out", "out")
    assert outcome.code == ExitCode.FAILED and "The disk is full." in outcome.stderr
    assert Path("out/a_mask.png").exists() and not Path("out/b_mask.png").exists()
    assert "f_mask.png" not in begun and not list(Path("out").glob("*.part"))


@pytest.mark.parametrize("command", ["segment", "classify"])
def test_texts_are_kept_unless_no_cache(clippy, flag, command):
    path, kept = flag(), Path(".cache/texts")
    run = (command, path, "--labels", "red,blue", "--json", *(("--save", "none") if command == "segment" else ()))
    without = clippy(*run, "--no-cache")
    assert not kept.exists()
    assert clippy(*run) == without
    assert len(list(kept.glob("*.texts"))) == 1
    assert clippy(*run) == without
    assert len(list(kept.glob("*.texts"))) == 1


@pytest.mark.parametrize(
    "command", [("segment", "--labels", "red"), ("group", "--groups", "2"), ("classify", "--labels", "red")]
)
def test_settings_say_what_auto_became(clippy, flag, command):
    name, *arguments = command
    outcome = clippy(name, flag(), *arguments, "--json", *(() if name == "classify" else ("--save", "none")))
    assert outcome.document["precision"] == "fp32"


def test_one_bad_file_does_not_stop_the_others(clippy, flag):
    good = [flag(f"photos/{name}.png") for name in "abcd"]
    Path("photos/bad.jpg").write_bytes(b"\xff\xd8 no photo")
    outcome = clippy("segment", "photos", "--labels", "red,blue", "--batch-size", "2")
    assert outcome.code == ExitCode.PARTIAL
    assert "photos/bad.jpg" in outcome.stderr
    assert "photos/bad.jpg" not in outcome.stdout
    for path in good:
        np.testing.assert_array_equal(read_mask(f"clippy_out/{path.stem}_mask.png"), HALVES)


def test_nothing_but_bad_files_is_a_failure(clippy):
    outcome = clippy("segment", "a.png", "b.png", "--labels", "red")
    assert outcome.code == ExitCode.FAILED
    assert outcome.stderr.count("no such file") == 2


def test_files_of_one_stem_keep_apart_and_own_pictures_are_no_input(clippy, flag):
    flag("a/dog.png")
    flag("b/dog.png", left=(0, 0, 255), right=(255, 0, 0))
    clippy("segment", "a", "b", "--labels", "red,blue", "--out", "a")
    np.testing.assert_array_equal(read_mask("a/a_dog_mask.png"), HALVES)
    np.testing.assert_array_equal(read_mask("a/b_dog_mask.png"), 3 - HALVES)
    again = clippy("segment", "a", "--labels", "red,blue", "--out", "a", "--json")
    assert [record["image"] for record in again.document["images"]] == ["a/dog.png"]


def test_files_in_the_way_are_named_before_any_work(clippy, flag):
    path = flag("in/dog.png")
    Path("in/dog.json").write_text("labelme's")
    Path("in/dog_mask.png").write_bytes(b"drawn by hand")
    refused = clippy("segment", path, "--labels", "red,blue", "--out", "in", "--model", "no-such-model")
    assert refused.code == ExitCode.FAILED and "--overwrite" in refused.stderr
    assert "dog.json: not written by clippy" in refused.stderr and "dog_mask.png: not written" in refused.stderr
    assert Path("in/dog.json").read_text() == "labelme's" and Path("in/dog_mask.png").read_bytes() == b"drawn by hand"
    assert clippy("segment", path, "--labels", "red,blue", "--out", "in", "--overwrite").code == ExitCode.OK
    assert clippy("segment", path, "--labels", "red", "--background", "blue", "--out", "in").code == ExitCode.OK
    flag("other/dog.png")  # another photo of that name
    refused = clippy("segment", "other/dog.png", "--labels", "red,blue", "--out", "in")
    assert "dog.json: made from " in refused.stderr


def test_without_out_no_earlier_result_is_replaced(clippy, flag):
    path = flag()
    first = clippy("segment", path, "--labels", "red,blue", "--save", "mask")
    assert first.code == 0 and "clippy_out-2" not in first.stderr
    before = Path("clippy_out/flag_mask.png").read_bytes()
    # Another kind of file would stand beside the mask of other labels.
    second = clippy("segment", path, "--labels", "blue,red", "--save", "json", "--json")
    assert second.document["images"][0]["files"] == {"json": "clippy_out-2/flag.json"}
    assert "Results go to clippy_out-2" in second.stderr
    flag("other/flag.png")
    clippy("segment", "other/flag.png", "--labels", "red,blue", "--save", "mask")  # another photo, the same name
    assert Path("clippy_out-3/flag_mask.png").is_file()
    flag("new.png")
    clippy("segment", "new.png", "--labels", "red,blue", "--save", "mask")
    assert Path("clippy_out/new_mask.png").is_file() and Path("clippy_out/flag_mask.png").read_bytes() == before
    clippy("segment", path, "--labels", "blue,red", "--save", "mask", "--overwrite")
    np.testing.assert_array_equal(read_mask("clippy_out/flag_mask.png"), 3 - HALVES)


def test_without_out_a_folder_that_another_command_holds_is_left_alone(clippy, flag):
    code = (
        "import sys, pathlib; from clippy_cli.locks import hold_folder\nwith hold_folder(pathlib.Path('clippy_out'), "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "'clippy evaluate'): print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        assert clippy("segment", flag(), "--labels", "red,blue", "--save", "mask").code == 0
        holder.stdin.close()
    assert Path("clippy_out-2/flag_mask.png").is_file()


def test_a_result_that_came_meanwhile_is_not_replaced(clippy, flag, monkeypatch):
    path, save = flag(), Segmentation.save

    def after_another(self, folder, *arguments, **options):
        if not Path("clippy_out/flag_mask.png").exists():
            save(self, folder, ("mask",), stem="flag")
        return save(self, folder, *arguments, **options)

    monkeypatch.setattr(Segmentation, "save", after_another)
    refused = clippy("segment", path, "--labels", "red,blue", "--save", "mask")
    assert refused.code == ExitCode.FAILED and "written by another process meanwhile" in refused.stderr
    assert clippy("segment", path, "--labels", "red,blue", "--save", "mask", "--out", "clippy_out").code == 0


def test_cutouts_and_scores(clippy, flag):
    outcome = clippy(
        "segment", flag(), "--labels", "red,blue", "--background", "green", "--save", "cutouts,scores", "--json"
    )
    files = outcome.document["images"][0]["files"]
    assert files["cutouts"] == ["clippy_out/flag_cutouts/red.png", "clippy_out/flag_cutouts/blue.png"]
    assert read_mask(files["cutouts"][0])[0, :, 3].tolist() == [255] * 32 + [0] * 32
    with np.load(files["scores"]) as stored:
        assert stored["entries"].tolist() == ["red", "blue", "green"]
        assert stored["similarity"].shape == (3, 6, 8)


def test_views_and_refinement_keep_what_is_clear_and_are_named(clippy, flag):
    sharper = ["--scales", "1,2", "--flip", "--window", "45", "--stride", "24", "--refine", "guided"]
    outcome = clippy("segment", flag(), "--labels", "red|crimson,blue", "--threshold", "0.4", *sharper, "--json")
    assert outcome.code == 0
    np.testing.assert_array_equal(read_mask("clippy_out/flag_mask.png"), HALVES)
    used = {name: outcome.document[name] for name in ("scales", "flip", "window", "stride", "refine", "resolution")}
    assert used == {"scales": [1, 2], "flip": True, "window": 48, "stride": 24, "refine": "guided", "resolution": 48}
    cosine = clippy("segment", flag(), "--labels", "red", "--threshold", "0.5", "--refine", "pamr", "--out", "cosine")
    assert cosine.code == 0
    np.testing.assert_array_equal(read_mask("cosine/flag_mask.png"), HALVES % 2)


def test_regions_from_elsewhere_are_reported_apart(clippy, flag):
    flag()
    numbers = np.zeros((48, 64), np.uint8)
    numbers[:, :40] = 7
    Path("regions").mkdir()
    Image.fromarray(numbers).save("regions/flag.png")
    flag("lonely.png")
    outcome = clippy("segment", "flag.png", "lonely.png", "--labels", "red,blue", "--regions", "regions")
    assert outcome.code == ExitCode.PARTIAL and "No regions for lonely" in outcome.stderr
    np.testing.assert_array_equal(read_mask("clippy_out/flag_mask.png"), HALVES)
    voted = np.where(np.arange(64) < 40, 1, 2)[None].repeat(48, 0)
    np.testing.assert_array_equal(read_mask("clippy_out/flag+regions_mask.png"), voted)
    assert "flag.png +regions" in outcome.stdout and "62.5 %" in outcome.stdout
    record = json.loads(Path("clippy_out/flag.json").read_text())
    assert [region["share"] for region in record["regions"]] == [0.5, 0.5]
    record = json.loads(Path("clippy_out/flag+regions.json").read_text())
    assert [region["share"] for region in record["regions"]] == [0.625, 0.375]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--labels", "red", "--scales", "1,x"], "--scales cannot be '1,x'"),
        (["--labels", "red", "--refine", "sharp"], "--refine cannot be 'sharp'"),
        (["--labels", "red", "--stride", "8"], "--stride needs windows"),
        (["--labels", "red", "--window", "16", "--stride", "24"], "leaves gaps"),
        (["--labels", "red", "--regions", "nowhere"], "nowhere: no such folder"),
        (["--labels", "red,,blue"], "empty label"),
        (["--labels", "red,blue", "--background", "Blue"], "'Blue' occurs twice"),
        (["--labels", "red", "--save", "overlay,masks"], "did you mean 'mask'"),
        (["--labels", "red", "--templates", "foto"], "did you mean 'photo'"),
        (["--labels", ",".join(f"label {i}" for i in range(255))], "255 labels do not fit"),
        (["--labels", "red", "--out", "flag.png/inside"], "cannot be written"),
    ],
)
def test_mistakes_are_explained(clippy, flag, arguments, says):
    outcome = clippy("segment", flag(), *arguments)
    assert outcome.code == ExitCode.FAILED
    assert says.lower() in outcome.stderr.lower()
    assert "hint:" in outcome.stderr


def test_the_flags_are_these():
    command = typer.main.get_group(app).commands["segment"]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {
        *("images", "--labels", "--background", "--threshold", "--templates", "--model", "--resolution", "--save"),
        *("--scales", "--flip", "--window", "--stride", "--refine", "--regions"),
        *(
            "--out",
            "--overwrite",
            "--batch-size",
            "--device",
            "--json",
            "--dense",
            "--proxy",
            "--positions",
            "--strict",
            "--profile",
            "--precision",
            "--compile",
            "--no-cache",
        ),
    }


def test_what_was_not_read_is_said_and_refused_by_strict(clippy, flag):
    flag("in/a.png")
    flag("in/__MACOSX/b.png")
    for name in ("b.dng", "c.dng", "d.mp4", "notes.txt"):
        Path("in", name).write_bytes(b"")
    outcome = clippy("segment", "in", "--labels", "red,blue", "--save", "none", "--json")
    assert outcome.code == ExitCode.PARTIAL
    assert [(notice["kind"], notice["count"]) for notice in outcome.document["notices"]] == [
        ("skipped", 2),
        ("skipped", 1),
    ]
    assert "2 files skipped: type .dng" in outcome.stderr
    refused = clippy("segment", "in", "--labels", "red,blue", "--strict", "--out", "strict")
    assert refused.code == ExitCode.FAILED
    assert "d.mp4" in refused.stderr and not Path("strict").exists()
    assert clippy("segment", "in/a.png", "--labels", "red,blue", "--strict").code == 0


def test_a_photo_of_fewer_bits_is_said_and_refused_by_strict(clippy):
    Image.fromarray(np.full((48, 64), 1000, np.uint16)).save("deep.png")
    outcome = clippy("classify", "deep.png", "--labels", "red,blue", "--json")
    assert (outcome.code, outcome.document["notices"][0]["kind"]) == (0, "assumed")
    outcome = clippy("group", "deep.png", "--groups", "1", "--strict", "--out", "strict")
    assert outcome.code == ExitCode.FAILED and "10 bits" in outcome.stderr and not Path("strict").exists()
    assert clippy("segment", "deep.png", "--labels", "red,blue").code == 0
    assert "10 bits" in json.loads(Path("clippy_out/deep.json").read_text())["notices"][0]["reason"]


@pytest.mark.parametrize(
    "command", [("segment", "--labels", "red,blue"), ("group", "--groups", "2"), ("classify", "--labels", "red,blue")]
)
def test_file_names_that_are_no_utf_8(clippy, flag, command):
    names = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "plain.png"]
    for name in names:
        flag(f"in/{name}")
    Path("in", "@eaDir").mkdir()
    Path("in", os.fsdecode(b"bad\xe9.png")).write_bytes(b"")
    outcome = clippy(command[0], "in", *command[1:])
    assert outcome.code == ExitCode.PARTIAL
    assert all(name in outcome.stdout for name in ("in/caf\\xe9.png", "in/new\\nline.png", "in/plain.png"))
    assert "bad\\xe9.png" in outcome.stderr
    document = clippy(command[0], "in", *command[1:], "--json").document
    assert (len(document["images"]), len(document["failed"])) == (3, 1)
    for path in Path("clippy_out").glob("*.json") if command[0] != "classify" else ():
        json.loads(path.read_bytes().decode("utf-8"))


@pytest.mark.parametrize(("turn", "said"), [(1, 0), (3, 1), (6, 0)])
def test_regions_of_a_photo_turned_without_a_change_of_size_are_an_assumption(clippy, flag, turn, said):
    path = flag("photo.jpg")
    tag = Image.Exif()
    tag[0x0112] = turn
    with Image.open(path) as photo:
        photo.load()
        photo.save(path, exif=tag)
    Path("regions").mkdir()
    shape = (64, 48) if turn == 6 else (48, 64)
    Image.fromarray(np.ones(shape, np.uint8)).save("regions/photo.png")
    outcome = clippy("segment", path, "--labels", "red,blue", "--regions", "regions", "--save", "none", "--json")
    assert (outcome.code, len(outcome.document["notices"])) == (0, said)
