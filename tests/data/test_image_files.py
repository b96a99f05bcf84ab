"""Folders of photos as they are: what is read, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.image_files import IMAGE_SUFFIXES, find_images
from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from tests.fixtures.data import encoded, noise


def write(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def told(inputs: list[str]) -> dict[str, tuple[str, int]]:
    """The first example of each notice -> its kind and count."""
    notices = Notices()
    find_images(inputs, notices=notices)
    return {notice.examples[0]: (str(notice.kind), notice.count) for notice in notices}


def test_types_that_are_not_read_are_counted_with_a_way_to_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in", "a.png", "a.txt", "b.DNG", "c.dng", "d.mov", "e.psd", "._a.png", "Thumbs.db", "f.xyz")
    write(tmp_path / "in", "IMG_0001", "clip.dat", content=encoded(noise(), "JPEG"))
    write(tmp_path / "in", "README")
    assert find_images(["in"]) == [Path("in/a.png")]
    assert told(["in"]) == {
        "in/b.DNG": ("skipped", 2),
        "in/d.mov": ("skipped", 1),
        "in/e.psd": ("skipped", 1),
        "in/IMG_0001": ("skipped", 2),
        "in/._a.png": ("ignored", 1),
        "in/f.xyz": ("ignored", 1),
    }
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(ClippyError, match=r"No image found in: in\n(.|\n)*2 files skipped: type \.dng"):
        find_images(["in"])


@pytest.mark.skipif(".heic" in IMAGE_SUFFIXES, reason="pillow-heif is installed")
def test_heic_without_its_package_names_the_extra(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "IMG_1.HEIC", "IMG_2.heif", content=b"\0\0\0\x18ftypheic" + bytes(20))
    notices = Notices()
    find_images([str(tmp_path)], notices=notices)
    assert notices.incomplete
    assert all("heic" in notice.hint for notice in notices)
    with pytest.raises(ClippyError, match="pillow-heif") as caught:
        read_image(tmp_path / "IMG_1.HEIC")
    assert "[heic]" in caught.value.hint


def test_heic_is_read_with_its_package(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.register_heif_opener()
    picture = np.kron(noise(3, 4), np.ones((16, 16, 1), np.uint8))
    Image.fromarray(picture).save(tmp_path / "a.heic", quality=95)
    assert find_images([str(tmp_path)]) == [tmp_path / "a.heic"]
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - picture).mean() < 8


def test_folders_of_a_system_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "in/a.png", "in/@eaDir/a.png", "in/__MACOSX/b/c.png", "in/album/d.png", "in/.hidden/e.png")
    assert find_images(["in/**/*.png"]) == [Path("in/a.png"), Path("in/album/d.png")]
    assert told(["in/**"]) == {"in/@eaDir/a.png": ("ignored", 2)}
    assert told(["in"]) == {"in/album": ("ignored", 1)}
    assert find_images(["in/@eaDir"]) == [Path("in/@eaDir/a.png")]  # it was named
    assert find_images(["in/@eaDir/*"]) == [Path("in/@eaDir/a.png")]


def test_names_that_are_no_utf_8_are_found_and_read(tmp_path: Path) -> None:
    write(tmp_path, os.fsdecode(b"caf\xe9.png"), content=encoded(noise(5, 6)))
    (path,) = find_images([str(tmp_path)])
    assert read_image(path).shape == (5, 6, 3)
    write(tmp_path, os.fsdecode(b"\xe9.png"))
    with pytest.raises(ClippyError) as caught:
        read_image(tmp_path / os.fsdecode(b"\xe9.png"))
    assert caught.value.message.encode() and "\\xe9.png" in caught.value.message
