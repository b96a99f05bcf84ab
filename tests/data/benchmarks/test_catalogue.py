"""Sets by name and by path: found, missing, downloaded, and one's own."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import IGNORE
from clippy_cli.data.benchmarks.catalogue import (
    benchmark_names,
    describe_all,
    download,
    layouts,
    locate,
    open_own_set,
)
from clippy_cli.errors import ClippyError
from tests.fixtures.benchmark_trees import write_photo, write_set
from tests.fixtures.data import encoded

MASK = np.array([[0, 1, 2], [1, 255, 0]], np.uint8)


def test_every_data_file_is_a_set_or_another_layout_of_one() -> None:
    assert benchmark_names() == (
        *("ade20k", "camvid", "cityscapes", "cityscapes27", "coco", "coco-object", "coco-stuff", "coco-stuff27"),
        *("context59", "context60", "scenes", "voc", "voc-train", "voc20", "bsds500", "imagenet", "imagenet-v2"),
    )
    for name in set(benchmark_names()) - {"scenes"}:
        specs = layouts(name)
        assert all(spec.source and spec.home and spec.tree and spec.complete for spec in specs)
        assert len({tuple(spec.classes.items()) for spec in specs}) == 1
        assert len({spec.title + spec.annotation for spec in specs}) == len(specs)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ClippyError, match="did you mean 'voc20'") as caught:
        open_benchmark("VOC-20", None)
    assert "cityscapes27" in str(caught.value.hint)
    with pytest.raises(ClippyError, match=r"none/here: no such file or folder"):
        open_benchmark("none/here", None)


def test_data_root_is_the_option_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPPY_DATA", raising=False)
    assert len(open_benchmark("scenes", None)) == 200
    with pytest.raises(ClippyError, match="No data folder"):
        open_benchmark("voc", None)
    monkeypatch.setenv("CLIPPY_DATA", str(tmp_path))
    write_set(tmp_path, "voc", {"a": MASK})
    assert open_benchmark("voc", None).info.folder == tmp_path / "VOCdevkit" / "VOC2012"


def test_a_root_on_the_way_is_enough_but_another_year_is_another_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path, "voc", {"a": MASK})
    (spec,) = layouts("voc")
    assert [locate(spec, root) for root in (folder, folder.parent, tmp_path)] == [folder] * 3
    other = folder.rename(folder.with_name("VOC2010"))
    assert [locate(spec, root) for root in (other, other.parent, tmp_path)] == [None] * 3


def test_fallbacks_are_tried_in_order(tmp_path: Path) -> None:
    folder = write_set(tmp_path, "camvid", {"a": MASK.clip(max=11)})
    assert open_benchmark("camvid", tmp_path).info.annotation == "test split"
    (folder / "test").rename(folder / "val")
    (folder / "testannot").rename(folder / "valannot")
    (folder / "val/a.png").unlink()
    write_photo(folder / "val/a.jpg", 2, 3)
    benchmark = open_benchmark("camvid", tmp_path)
    assert (benchmark.info.title, benchmark.info.annotation) == ("CamVid val, 11 classes", "val split instead of test")
    assert benchmark.read(0).key == "a"


def test_a_missing_set_says_what_was_looked_for_where_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ClippyError) as caught:
        open_benchmark("voc", tmp_path)
    for part in ("ImageSets/Segmentation/val.txt", f"{tmp_path / 'VOC2012'}", "holds flowers"):
        assert part in caught.value.message
    assert "VOCtrainval_11-May-2012.tar" in str(caught.value.hint)
    assert "--download" in str(caught.value.hint)
    with pytest.raises(ClippyError) as caught:
        open_benchmark("cityscapes", tmp_path)
    assert "--download" not in str(caught.value.hint)


def test_the_list_knows_what_is_there_and_why_not(tmp_path: Path) -> None:
    write_set(tmp_path, "voc", {"a": MASK, "b": MASK})
    ade = write_set(tmp_path, "ade20k", {"a": MASK})
    (ade / "annotations/validation/ADE_val_a.png").unlink()
    found = {status.name: status for status in describe_all(tmp_path)}
    assert tuple(found) == benchmark_names()
    assert (found["voc"].images, found["voc"].classes, found["voc"].downloadable) == (2, 21, True)
    assert found["voc"].folder == tmp_path / "VOCdevkit" / "VOC2012"
    assert (found["ade20k"].images, found["ade20k"].folder) == (None, ade)
    assert "none of 1 photos is there with its mask" in found["ade20k"].problem
    camvid = found["camvid"]
    assert (camvid.images, camvid.folder, camvid.problem) == (None, None, "")
    assert tmp_path / "CamVid" in camvid.looked_for
    assert [(found[name].kind, found[name].classes) for name in ("coco", "bsds500", "imagenet")] == [
        ("segmentation", 133),
        ("boundaries", 0),
        ("classification", 1000),
    ]
    assert [status.images for status in describe_all(None) if status.name != "scenes"] == [None] * (len(found) - 1)


def test_a_download_that_breaks_off_leaves_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: str, **_: object) -> None:
        write_set(Path(root), "voc", {"a": MASK})
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", broken)
    with pytest.raises(ClippyError, match=r"could not be fetched into .*: no route to host"):
        download("voc", tmp_path)
    with pytest.raises(ClippyError, match="is not below"):
        open_benchmark("voc", tmp_path)

    def complete(root: str, *, year: str, image_set: str, download: bool) -> None:
        assert (year, image_set, download) == ("2012", "val", True)
        write_set(Path(root), "voc", {"a": MASK})

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", complete)
    assert download("voc20", tmp_path) == open_benchmark("voc20", tmp_path).info.folder
    assert [path.name for path in tmp_path.iterdir()] == ["VOCdevkit"]
    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", broken)
    assert download("voc", tmp_path) == tmp_path / "VOCdevkit" / "VOC2012"
    with pytest.raises(ClippyError, match=r"cityscapes .* has no downloader"):
        download("cityscapes", tmp_path)


def write_own(folder: Path, text: str) -> Path:
    path = folder / "greenhouse.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def test_the_documented_example_of_an_own_set(tmp_path: Path) -> None:
    example = inspect.cleandoc(str(open_own_set.__doc__)).split("::\n\n")[1].split("\n\n")[0]
    path = write_own(tmp_path, example)
    for key in ("north/1", "south/1"):
        write_photo(tmp_path / f"photos/{key}.jpg", 2, 3)
        (tmp_path / f"labels/{key}.png").parent.mkdir(parents=True)
        (tmp_path / f"labels/{key}.png").write_bytes(encoded(Image.fromarray(MASK)))
    benchmark = open_benchmark(str(path), None)
    assert (benchmark.info.name, benchmark.info.title) == ("greenhouse", "Our greenhouse, test plants")
    assert [(entry.name, entry.prompts) for entry in benchmark.classes] == [
        ("leaf", ("leaf", "foliage")),
        ("tomato", ("tomato",)),
        ("background", ("background",)),
    ]
    assert (benchmark.background, benchmark.context) == (2, ("soil", "wall", "sky"))
    assert [benchmark.key(0), benchmark.key(1)] == ["north/1", "south/1"]
    np.testing.assert_array_equal(benchmark.read(1).mask, MASK)
    assert benchmark.read(1).mask[1, 1] == IGNORE


def test_an_own_set_with_everything_wrong_says_so_at_once(tmp_path: Path) -> None:
    path = write_own(
        tmp_path,
        """\
        titel: Plants
        images: photos/*.jpg
        masks: labels/{}.png
        classes: [leaf, leaf]
        ignore: [0, 99999]
        reader: mask
        """,
    )
    with pytest.raises(ClippyError) as caught:
        open_own_set(path)
    lines = caught.value.message.replace(str(path), "own.yaml").splitlines()
    assert lines[0] == "The data set own.yaml has 6 problems:"
    for line, start in zip(
        lines[1:],
        (
            "own.yaml:1  title: this field is required",
            "own.yaml:1  titel: unknown field; did you mean title?",
            "own.yaml:2  images: must have {} once",
            "own.yaml:4  classes: must name each class once, leaf is there twice",
            "own.yaml:5  ignore.1: must be less than 65536",
            "own.yaml:6  reader: must be 'masks'",
        ),
        strict=True,
    ):
        assert line.strip().startswith(start)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("classes: [a, b]\nbackground: c", ":5  background: background is 'c', which is no class"),
        ("classes: [a, b]\ncontext: sky", ":5  context: context words count as background"),
        ("classes: [a, b]\nignore: 1", ":5  ignore: value 1 must mean one class, or be ignored, not both"),
        (
            "classes: [a, b]\nvalues: {a: 1, c: 2}",
            ":5  values: values and classes must name the same classes, unlike b, c",
        ),
        ("classes: [a, b]\nvalues: {a: 1, b: [2, 1]}", ":5  values: value 1 must mean one class"),
        ("classes: {a: []}", ":4  classes.a: value should have at least 1 item"),
        (r'classes: {"\ud800": a}', r":4  classes: a text holds one of .ud800"),
        ("ignore: 0", ":1  classes: a set with masks needs images, masks and classes"),
        ("classes: [a]\nfallback: voc", "fallback is for sets that ship with clippy"),
        ("classes: [a]\nroots: [x, y]", "looked for photos/{}.jpg, labels/{}.png in .*/x, .*/y"),
    ],
)
def test_fields_that_disagree(tmp_path: Path, fields: str, problem: str) -> None:
    path = write_own(tmp_path, f"title: t\nimages: photos/{{}}.jpg\nmasks: labels/{{}}.png\n{fields}\n")
    with pytest.raises(ClippyError, match=problem):
        open_own_set(path)
