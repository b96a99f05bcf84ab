"""Captioned shards as a set to measure on: the ways to name them, keys, and broken samples."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks.captioned import open_captioned
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_shard


def write_samples(path: Path, *keys: str) -> Path:
    members: dict[str, bytes | str] = {}
    for seed, key in enumerate(keys):
        members |= {
            f"{key}.png": encoded(noise(seed=seed)),
            f"{key}.json": f'{{"captions": ["{key} one", "{key} two"]}}',
        }
    return write_shard(path, members)


def test_a_file_a_folder_a_range_and_a_glob(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    write_samples(folder / "dev-0.tar", "a", "b")
    write_samples(folder / "dev-1.tar", "c")
    for pattern, name, count in (
        (str(folder / "dev-0.tar"), "dev-0", 2),
        (str(folder), "photos", 3),
        (f"{folder}/dev-{{0..1}}.tar", "dev-{0..1}", 3),
        (f"{folder}/dev-*.tar", "dev-*", 3),
    ):
        found = pickle.loads(pickle.dumps(open_captioned(pattern)))
        assert (found.info.name, len(found), found.kind, found.info.folder) == (name, count, "retrieval", folder)
        sample = found.read(1)
        assert (found.key(1), sample.key, sample.captions) == ("b", "b", ("b one", "b two"))
        np.testing.assert_array_equal(sample.image, noise(seed=1))


def test_keys_that_shards_share_are_told_apart(tmp_path: Path) -> None:
    write_samples(tmp_path / "0.tar", "a", "b")
    write_samples(tmp_path / "1.tar", "a")
    found = open_captioned(str(tmp_path))
    keys = [found.key(index) for index in range(3)]
    assert keys == ["0/a", "1/b", "2/a"]
    assert [found.read(index).key for index in range(3)] == keys


def test_a_broken_sample_is_an_error_and_what_is_lost_is_in_the_notices(tmp_path: Path) -> None:
    members = {"a.png": b"no picture", "a.txt": "a", "b.png": encoded(noise()), "b.txt": "b", "c.txt": "no image"}
    path = write_shard(tmp_path / "s.tar", members)
    (tmp_path / "more").mkdir()
    write_shard(tmp_path / "more" / "t.tar", {"a.txt": "a"})
    (tmp_path / "u.tar.gz").write_bytes(b"")
    found = open_captioned(str(tmp_path))
    assert [str(notice).partition(" (")[0] for notice in found.notices] == [
        "1 caption skipped: no image of the same key",
        "1 folder skipped: its shards are not read, only those of the folder named",
        "1 shard skipped: compressed, so that samples cannot be read in any order",
    ]
    found = open_captioned(str(path))
    with pytest.raises(ClippyError, match=r"s\.tar: a: not an image"):
        found.read(0)
    assert found.read(1).captions == ("b",)


def test_nothing_there(tmp_path: Path) -> None:
    for pattern, said in (
        (tmp_path, "holds no shards"),
        (tmp_path / "x.tar", "do not exist"),
        (tmp_path / "*.tar", "No file"),
    ):
        with pytest.raises(ClippyError, match=said):
            open_captioned(str(pattern))


def test_real_shards(real_data: Path) -> None:
    found = open_captioned(str(real_data / "flickr8k" / "dev-00000.tar"))
    assert len({found.key(index) for index in range(len(found))}) == len(found) == 1000
    assert len(found.read(999).captions) == 5
