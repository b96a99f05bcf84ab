"""Folders and patterns of captioned data: everything is delivered, or counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clippy_cli.data.captioned_inputs import open_captioned_data
from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.data.checking import check_captioned_data
from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.shard_names import local_shards
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_shard

PHOTO = encoded(noise())


def said(source: ShardSource | FolderSource) -> list[str]:
    return [str(notice) for notice in source.notices]


def test_what_lies_in_a_folder_of_shards(tmp_path: Path) -> None:
    for name in ("a.tar", "B.TAR", "more/c.tar", "@eaDir/d.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / name, {f"{name[0]}.png": PHOTO, f"{name[0]}.txt": "x"})
    for name in ("._a.tar", "d.tar.gz", "e.tgz", "a.tsv", "f.jpg"):
        (tmp_path / name).write_bytes(b"x" * 2000)
    source = open_captioned_data([str(tmp_path)])
    assert isinstance(source, ShardSource) and [source.key(index) for index in range(len(source))] == ["B", "a"]
    assert [notice.partition(")")[0] for notice in said(source)] == [
        "2 shards skipped: compressed, so that samples cannot be read in any order (d.tar.gz, e.tgz",
        "1 folder skipped: its shards are not read, only those of the folder named (more",
        "1 file ignored: hidden, its name starts with a dot (._a.tar",
        "1 image ignored: lies beside the shards of its folder (f.jpg",
    ]
    for name in ("a.tar", "B.TAR", "._a.tar"):
        (tmp_path / name).unlink()
    with pytest.raises(ClippyError, match="holds no shard that can be read"):
        open_captioned_data([str(tmp_path)])


def test_each_of_several_globs_must_match(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-0.tar", {})
    assert local_shards([f"{tmp_path}/{{a,a}}-[1-9].tar", f"{tmp_path}/a-*.tar"][1:]) == [tmp_path / "a-0.tar"]
    with pytest.raises(ClippyError, match=r"No file matches \S+b-\*\.tar"):
        local_shards([f"{tmp_path}/{{a,b}}-*.tar"])


def test_a_table_among_other_inputs_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,caption\n")
    with pytest.raises(ClippyError, match="is a table, and 2 inputs are named"):
        open_captioned_data([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])


def test_what_a_json_holds_beside_its_captions(tmp_path: Path) -> None:
    captions = {
        "a": {"captions": ["x", 5, {"raw": "y"}, "nan", " z\n"]},
        "b": {"captions": ["x"], "caption": "another"},
        "c": {"captions": ["x", "y"], "caption": "y"},
        "d": {"caption": "None"},
        "e": {"captions": {"en": "x"}},
    }
    members: dict[str, bytes | str] = {f"{key}.png": PHOTO for key in captions}
    shard = write_shard(tmp_path / "s.tar", members | {f"{key}.json": json.dumps(captions[key]) for key in captions})
    source = ShardSource([str(shard)])
    assert [source.captions(index) for index in range(3)] == [("x", "z"), ("x",), ("x", "y")]
    assert [notice.replace(f" in {shard}", "") for notice in said(source)] == [
        "2 captions skipped: an item of its captions is not text (a, a)",
        "1 caption skipped: an item of its captions is empty, or stands for nothing (a)",
        '1 caption skipped: it has "captions", so that its "caption" is not read (b)',
    ]
    for index in (3, 4):
        with pytest.raises(BrokenSampleError, match="holds no caption"):
            source.read(index)


def test_texts_that_are_no_captions(tmp_path: Path) -> None:
    texts = {"a": b"None", "b": "a dog".encode("utf-16-le"), "c": b"salt &amp; pepper", "d": b"none"}
    members = {f"{key}.png": PHOTO for key in texts} | {f"{key}.txt": text for key, text in texts.items()}
    source = ShardSource([str(write_shard(tmp_path / "s.tar", members))])
    report = check_captioned_data(source, images=False)
    assert report.broken == 2 and "stands for an empty field" in report.broken_examples[0]
    assert "may be UTF-16" in report.broken_examples[1]
    assert [str(notice) for notice in report.notices] == [
        "1 caption: the caption has HTML entities, read as they stand (c)"
    ]
    assert not list(source.notices)


def test_keys_that_differ_after_a_dot_are_samples_of_their_own(tmp_path: Path) -> None:
    keys = ("a", "a.1", "a.2", "b")
    members: dict[str, bytes | str] = {"a.mask.png": PHOTO, "b.left.png": PHOTO, "b.note.txt": "left out"}
    for number, key in enumerate(keys):
        members |= {f"{key}.png": encoded(noise(seed=number)), f"{key}.txt": f"of {key}"}
    members |= {"__MACOSX/a.png": PHOTO, "__MACOSX/a.txt": "x"}
    source = ShardSource([str(write_shard(tmp_path / "s.tar", members))])
    found: dict[str, CaptionedImage] = {source.key(index): source.read(index) for index in range(len(source))}
    assert {key: sample.captions for key, sample in found.items()} == {key: (f"of {key}",) for key in keys}
    assert all((found[key].image == noise(seed=number)).all() for number, key in enumerate(keys))
    assert [notice.partition(" (")[0] for notice in said(source)] == [
        "2 members ignored: in a folder of the system",
        "3 members ignored: not the image or caption of its key",
        "2 samples: the key goes up to the last dot, not to the first",
    ]


def test_folders_and_texts_that_are_not_meant(tmp_path: Path) -> None:
    texts = {"a": b"a dog", "b": "a dog".encode("utf-16-le"), "c": b"nan", ".git/d": b"x", "__MACOSX/e": b"x"}
    for key, text in texts.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / f"{key}.png").write_bytes(PHOTO)
        (tmp_path / f"{key}.txt").write_bytes(text)
    source = FolderSource(tmp_path)
    assert [source.key(index) for index in range(len(source))] == ["a.png"]
    assert sorted(said(source)) == [
        "1 image skipped: its text file has NUL characters; it may be UTF-16 (b.txt)",
        "1 image skipped: its text file says 'nan', which stands for nothing (c.txt)",
        "2 folders ignored: of the system (.git, __MACOSX)",
    ]
