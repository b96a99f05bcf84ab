"""Which files belong to a set: unions of patterns, what fits none, and listings as people write them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import Reading
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise


def write_own_set(folder: Path, photos: list[str], *, images: str = "p/{}.jpg", more: str = "") -> Path:
    """A set of your own: these photos below ``p``, a mask below ``m`` for each stem."""
    for name in photos:
        photo, mask = folder / "p" / name, folder / "m" / Path(name).with_suffix(".png")
        for path in (photo, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(encoded(noise(6, 8), "PNG" if name.lower().endswith("png") else "JPEG"))
        mask.write_bytes(encoded(np.zeros((6, 8), np.uint8)))
    path = folder / "mine.yaml"
    path.write_text(f"title: Mine\nimages: {images}\nmasks: m/{{}}.png\nclasses: [a, b]\n{more}")
    return path


def keys(path: Path) -> list[str]:
    found = open_benchmark(str(path), None)
    return [found.read(index).key for index in range(len(found))]


def test_several_patterns_mean_their_union(tmp_path: Path) -> None:
    photos = ["a.jpg", "b.JPG", "c.png", "a.png"]
    path = write_own_set(tmp_path, photos, images='["p/{}.jpg", "p/{}.png", "p/{}.JPG"]')
    assert keys(path) == ["a", "b", "c"]
    found = open_benchmark(str(path), None)
    assert [(str(notice.kind), notice.examples) for notice in found.notices] == [("assumed", ("a",))]


def test_photos_that_fit_no_pattern_are_said(tmp_path: Path) -> None:
    path = write_own_set(tmp_path, ["a.jpg", "b.JPG", "sub/c.png", "@eaDir/d.jpg"])
    (tmp_path / "p" / "e.heif.mov").write_bytes(b"")
    (tmp_path / "p" / "other.png").write_bytes(b"")
    (tmp_path / "m" / "lonely.png").write_bytes(b"")
    found = open_benchmark(str(path), None)
    assert [found.key(index) for index in range(len(found))] == ["a"]
    told = {notice.examples: str(notice.kind) for notice in found.notices}
    assert told == {
        ("p/b.JPG",): "skipped",
        ("p/sub/c.png",): "skipped",
        ("p/e.heif.mov",): "skipped",
        ("p/other.png",): "ignored",
        ("p/@eaDir",): "ignored",
        ("lonely",): "ignored",
    }
    with pytest.raises(ClippyError, match=r"The set mine was not used as it stands:(.|\n)*p/b\.JPG"):
        open_benchmark(str(path), None, Reading(strict=True))


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("IMG 1\nIMG 2\nb\n", ["IMG 1", "IMG 2", "b"]),
        ("IMG 1\r\n\r\nb\r\n", ["IMG 1", "b"]),
        ("b.jpg\nIMG 1.jpg\n", ["b", "IMG 1"]),
        ("p/b.jpg\n./p/IMG 2.jpg\n", ["b", "IMG 2"]),
        ("/home/me/b.jpg\n", ["b"]),
        ("b 1\nIMG 2 0\n", None),
        ("b 1\nx/c\t-1\n", ["b", "x/c"]),
        ("# all of them\nb\n", ["b"]),
        ("\ufeffb\nx/c\n", ["b", "x/c"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_listings_as_people_write_them(tmp_path: Path, listing: str, expected: list[str] | None, encoding: str) -> None:
    path = write_own_set(tmp_path, ["IMG 1.jpg", "IMG 2.jpg", "b.jpg", "x/c.jpg"], more="listing: val.txt\n")
    text = listing.removeprefix("\ufeff") if encoding == "utf-16" else listing
    (tmp_path / "val.txt").write_bytes(text.encode(encoding))
    if expected is None:
        found = open_benchmark(str(path), None)
        assert [found.key(index) for index in range(len(found))] == ["b", "IMG"]
        with pytest.raises(ClippyError, match="no such file"):
            found.read(1)
    else:
        assert keys(path) == expected


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        ("b\nb\n", "listed twice, in line 1"),
        ("gone 1\ngone 2\n", r"no photo is called 'gone 2'"),
        ("b\n../b\n", "does not name an image"),
        ("\n \n", "lists no image"),
    ],
)
def test_listings_that_cannot_be_used(tmp_path: Path, listing: str, said: str) -> None:
    path = write_own_set(tmp_path, ["b.jpg"], more="listing: val.txt\n")
    (tmp_path / "val.txt").write_text(listing)
    with pytest.raises(ClippyError, match=said):
        open_benchmark(str(path), None)


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    path = write_own_set(tmp_path, [name], more="listing: val.txt\n")
    (tmp_path / "val.txt").write_bytes(b"caf\xe9\n")
    assert keys(path) == ["caf\\xe9"]
    assert keys(write_own_set(tmp_path, [name])) == ["caf\\xe9"]
