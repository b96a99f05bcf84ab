"""Class folders: whose classes they are, what is asked for them, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.data.benchmarks.class_folders import open_class_folders
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.errors import ClippyError
from tests.fixtures.annotated_trees import write_class_folders
from tests.fixtures.data import noise


def test_names_of_folders_are_asked_for(tmp_path: Path) -> None:
    root = write_class_folders(
        tmp_path, {"hot_dog": ["b.png", "a.PNG"], "t-shirt": ["a.png"], "_": [], ".cache": ["a.png"]}
    )
    (root / "hot_dog" / "notes.txt").write_text("no image")
    (root / "hot_dog" / ".hidden.png").write_text("")
    (root / "README.md").write_text("")
    found = pickle.loads(pickle.dumps(open_class_folders("mine", None, root)))
    assert [(one.name, one.prompts) for one in found.classes] == [
        ("hot dog", ("hot dog",)),
        ("t shirt", ("t shirt",)),
    ]
    assert [found.key(index) for index in range(len(found))] == ["hot_dog/a.PNG", "hot_dog/b.png", "t-shirt/a.png"]
    assert [found.read(index).target for index in range(3)] == [0, 0, 1]
    np.testing.assert_array_equal(found.read(1).image, noise(seed=0))
    assert (found.info.name, found.kind, found.info.complete) == ("mine", "classification", None)


def test_what_lies_beside_the_images_is_named(tmp_path: Path) -> None:
    files = {"cat": ["a.png", "b.heic", "c.NEF"], "dog": ["a.png"], "__MACOSX": ["a.png"], "lost+found": [], "owl": []}
    root = write_class_folders(tmp_path, files)
    (root / "stray.png").write_bytes(b"")
    write_class_folders(root / "dog", {"puppies": ["a.png"], "@eaDir": ["a.png"]})
    (root / "cat" / "._a.png").write_bytes(b"")
    found = open_class_folders("mine", None, root)
    assert [one.name for one in found.classes] == ["cat", "dog"]
    told = {(str(notice.kind), notice.examples) for notice in found.notices}
    assert {kind for kind, _ in told} == {"skipped", "ignored", "assumed"}
    for kind, examples in (
        ("skipped", ("stray.png",)),
        ("skipped", ("cat/c.NEF",)),
        ("skipped", ("dog/puppies",)),
        ("ignored", ("__MACOSX", "lost+found")),
        ("ignored", ("dog/@eaDir",)),
        ("ignored", ("cat/._a.png",)),
        ("assumed", ("owl",)),
    ):
        assert (kind, examples) in told
    (root / "classes.yaml").write_text("owl: owl\n")
    named = open_class_folders("mine", None, root)
    assert [one.name for one in named.classes] == ["cat", "dog", "owl"]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"dog": ["a.png"], os.fsdecode(b"caf\xe9"): [os.fsdecode(b"\xe9t\xe9.png")]})
    found = open_class_folders("mine", None, root)
    assert [one.prompts for one in found.classes] == [("caf\u00e9",), ("dog",)]
    assert found.key(0) == "caf\\xe9/\\xe9t\\xe9.png"
    assert found.read(0).target == 0
    assert "Latin-1" in "".join(map(str, found.notices))


def test_a_file_beside_the_folders_says_what_to_ask(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"0": ["a.png"], "1": ["a.png"], "tom_cat": ["a.png"]})
    (root / "classes.yaml").write_text("'0': [puppy, young dog]\n'1': kitten\n")
    found = open_class_folders("mine", None, root)
    assert [one.prompts for one in found.classes] == [("puppy", "young dog"), ("kitten",), ("tom cat",)]
    for text, said in (("'2': a\n", "'2' is no class folder"), ("'0': 7\n", "classes.yaml:1"), ("[a]", "holds")):
        (root / "classes.yaml").write_text(text)
        with pytest.raises(ClippyError, match=said):
            open_class_folders("mine", None, root)


def test_imagenet_has_1000_classes_whichever_are_there(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"n02012849": ["bird.JPEG"], "n03126707": ["machine.JPEG"], "n15075141": []})
    for spec in (None, load_spec("imagenet")):
        found = open_class_folders("imagenet", spec, root)
        assert len(found.classes) == 1000
        assert [found.read(index).target for index in range(2)] == [134, 517]
        assert found.classes[134].prompts == ("crane bird",)
        assert found.classes[517].prompts == ("construction crane",)
        assert [found.classes[index].name for index in (0, 999)] == ["tench", "toilet paper"]
        assert len({one.name for one in found.classes}) == 1000
        assert found.classes[836].prompts == found.classes[837].prompts == ("sunglasses",)


def test_names_of_open_clip_are_in_the_order_of_timms_ids() -> None:
    """Independent of the reader: the words of WordNet's own description and of the class name meet, class by class."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    ids = info.label_names()
    assert ids == sorted(ids)
    described = [
        set(info.label_name_to_description(one).lower().replace("-", " ").replace(",", " ").split()) for one in ids
    ]
    named = [set(name.lower().replace("-", " ").split()) for name in IMAGENET_CLASSNAMES]
    agree = sum(bool(words & others) for words, others in zip(named, described, strict=True))
    shifted = sum(bool(words & others) for words, others in zip(named, described[1:], strict=False))
    assert agree >= 950  # the others are renamed, as rooster for cock
    assert shifted < 300


def test_imagenet_v2_counts_classes_by_number(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"0": ["a.jpeg"], "10": ["a.jpeg"], "9": ["a.jpeg"]})
    found = open_class_folders("imagenet-v2", load_spec("imagenet-v2"), root)
    assert [found.read(index).target for index in range(3)] == [0, 10, 9]
    assert (len(found.classes), found.classes[9].name) == (1000, "ostrich")
    assert found.info.complete == 10_000
    assert [one.name for one in open_class_folders("mine", None, root).classes] == ["0", "10", "9"]


@pytest.mark.parametrize("folder", ["train", "n00000000", "1000", "01"])
def test_what_is_no_class_of_imagenet_is_refused(tmp_path: Path, folder: str) -> None:
    root = write_class_folders(tmp_path, {"n01440764": ["a.png"], folder: ["a.png"]})
    for spec in (load_spec("imagenet"), None):
        with pytest.raises(ClippyError, match=r"folders are no known class"):
            open_class_folders("imagenet", spec, root)
    (root / "classes.yaml").write_text(f"n01440764: tench\n'{folder}': thing\n")
    assert len(open_class_folders("mine", None, root).classes) == 2


def test_a_data_file_names_the_folders(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"b": ["a.png"], "a": ["a.png"]})
    spec = SetSpec(title="Mine", reader="class-folders", classes={"b": ("bee", "wasp"), "c": ("sea",), "a": ("ant",)})
    found = open_class_folders("mine", spec, root)
    assert [one.name for one in found.classes] == ["bee", "sea", "ant"]
    assert [found.read(index).target for index in range(2)] == [2, 0]
    with pytest.raises(ClippyError, match="such as 'b'"):
        open_class_folders("mine", SetSpec(title="Mine", reader="class-folders", classes={"a": ("ant",)}), root)


def test_nothing_to_measure_on(tmp_path: Path) -> None:
    with pytest.raises(ClippyError, match="no class folders"):
        open_class_folders("mine", None, tmp_path)
    with pytest.raises(ClippyError, match="cannot be read"):
        open_class_folders("mine", None, tmp_path / "absent")
    with pytest.raises(ClippyError, match="none of 2 class folders"):
        open_class_folders("mine", None, write_class_folders(tmp_path, {"a": [], "b": []}))


def test_a_broken_image_fails_when_read(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"a": ["a.png", "b.png"]})
    (root / "a" / "a.png").write_bytes(b"no picture")
    found = open_class_folders("mine", None, root)
    with pytest.raises(ClippyError, match="not an image"):
        found.read(0)
    (root / "a" / "b.png").unlink()
    with pytest.raises(ClippyError, match="no such file"):
        found.read(1)


def test_the_real_set(real_data: Path) -> None:
    found = open_class_folders("imagenet", load_spec("imagenet"), real_data / "imagenet-sample")
    assert (len(found), len(found.classes)) == (500, 1000)
    keys = [found.key(index) for index in range(len(found))]
    item = found.read(next(index for index, key in enumerate(keys) if key.startswith("n02033041")))
    assert found.classes[item.target].name == "dowitcher"
