"""Shards: what is whole is read, what is not is named."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_shard


def said(source: ShardSource) -> list[str]:
    return [str(notice) for notice in source.notices]


def sample_members(*keys: str) -> dict[str, bytes | str]:
    """A picture, seeded by its number, and a caption for each key."""
    members: dict[str, bytes | str] = {}
    for number, key in enumerate(keys):
        members[f"{key}.png"] = encoded(noise(seed=number))
        members[f"{key}.txt"] = f"caption of {key}"
    return members


def test_samples_come_back_in_any_order_and_after_pickling(tmp_path: Path) -> None:
    write_shard(tmp_path / "s-0.tar", sample_members("a", "b"))
    write_shard(tmp_path / "s-1.tar", sample_members("c"))
    source: ShardSource = pickle.loads(pickle.dumps(ShardSource([str(tmp_path / "s-{0..1}.tar")])))
    assert len(source) == 3
    assert not list(source.notices)
    for index, (key, seed) in reversed(list(enumerate([("a", 0), ("b", 1), ("c", 0)]))):
        sample = source.read(index)
        assert sample.key == key
        assert sample.captions == (f"caption of {key}",)
        np.testing.assert_array_equal(sample.image, noise(seed=seed))
    assert "3 samples in 2 shards" in source.describe()


def test_keys_end_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    members = {
        "x.d/one.JPG": encoded(noise(), "JPEG"),
        "x.d/one.txt": "first",
        "y/one.seg.png": encoded(noise()),
        "y/one.webp": encoded(noise(), "WEBP"),
        "y/one.txt": "second",
        "y/.hidden.png": b"",
        "README": "no dot",
    }
    source = ShardSource([str(write_shard(tmp_path / "s.tar", members))])
    assert [source.read(index).key for index in range(len(source))] == ["x.d/one", "y/one"]
    assert [source.read(index).captions for index in range(2)] == [("first",), ("second",)]


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ({"captions": ["a dog", " a\n cat "]}, ("a dog", "a cat")),
        ({"caption": "a dog", "url": "x", "sha256": None}, ("a dog",)),
        ({"captions": ["", 3, "a dog"]}, ("a dog",)),
        ({"caption": None}, None),
        ({"captions": []}, None),
        (["a dog"], None),
        ("a dog", None),
    ],
)
def test_captions_in_json(tmp_path: Path, text: object, captions: tuple[str, ...] | None) -> None:
    shard = write_shard(tmp_path / "s.tar", {"a.json": json.dumps(text), "a.png": encoded(noise())})
    source = ShardSource([str(shard)])
    if captions is None:
        with pytest.raises(BrokenSampleError, match="no caption"):
            source.read(0)
    else:
        assert source.read(0).captions == captions


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", " \n", "empty"),
        ("a.txt", b"\xff\xfe\xfa", "UTF-8"),
        ("a.json", "{", "JSON"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.png", b"not a picture", "not an image"),
        ("a.png", encoded(noise(64, 64))[:-2000], "truncated"),
    ],
)
def test_a_broken_sample_says_where_and_why(tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    members = {"a.png": encoded(noise()), "a.txt": "fine"}
    if name == "a.json":
        del members["a.txt"]
    source = ShardSource([str(write_shard(tmp_path / "s.tar", members | {name: content}))])
    with pytest.raises(BrokenSampleError, match=said) as caught:
        source.read(0)
    assert str(caught.value).count(f"{tmp_path / 's.tar'}: a") == 1
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), BrokenSampleError)


def test_samples_without_image_or_caption_are_counted(tmp_path: Path) -> None:
    members = sample_members("whole") | {"lone.png": encoded(noise()), "mute.txt": "a", "mute2.json": "{}"}
    source = ShardSource([str(write_shard(tmp_path / "s.tar", members))])
    assert len(source) == 1
    shard = tmp_path / "s.tar"
    assert said(source) == [
        f"2 captions skipped: no image of the same key (mute in {shard}, mute2 in {shard})",
        f"1 image skipped: no caption of the same key (lone in {shard})",
    ]


def test_of_repeated_members_the_first_counts(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as archive:
        for name, data in (
            ("a.json", b'{"caption": "json"}'),
            ("a.png", encoded(noise(seed=1))),
            ("a.txt", b"text"),
            ("a.png", encoded(noise(seed=2))),
            ("a.txt", b"again"),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    source = ShardSource([str(shard)])
    assert source.read(0).captions == ("text",)
    np.testing.assert_array_equal(source.read(0).image, noise(seed=1))
    assert said(source) == [
        f"2 members skipped: repeats a key of the shard; the first one is used (a.png in {shard}, a.txt in {shard})",
        f"1 member ignored: the .txt of the same key is the caption (a.json in {shard})",
    ]


def test_only_regular_members_are_read(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as archive:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.DIRTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/hostname"
            archive.addfile(header)
        for name, data in sample_members("a").items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data if isinstance(data, bytes) else data.encode()))
    source = ShardSource([str(shard)])
    assert [source.read(index).key for index in range(len(source))] == ["a"]
    assert said(source) == [
        f"2 members skipped: a link to what the shard does not hold (l.png in {shard}, h.png in {shard})"
    ]


def test_a_shard_cut_anywhere_keeps_its_whole_samples(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", sample_members("a", "b", "c"))
    with tarfile.open(whole) as archive:
        ends = [member.offset_data + member.size for member in archive if member.name.endswith(".txt")]
    data = whole.read_bytes()
    cut = tmp_path / "cut.tar"
    for size in range(ends[0], ends[-1] + 400, 173):
        cut.write_bytes(data[:size])
        source = ShardSource([str(cut)])
        assert len(source) == sum(end <= size for end in ends)
        assert any("cut short or damaged" in notice for notice in said(source))
        assert [source.read(index).key for index in range(len(source))] == ["a", "b", "c"][: len(source)]


def test_garbage_in_the_middle_is_a_problem_and_not_a_silent_end(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sample_members("a", "b"))
    with tarfile.open(shard) as archive:
        start = archive.getmember("b.png").offset
    data = bytearray(shard.read_bytes())
    data[start : start + 512] = bytes(range(256)) * 2
    shard.write_bytes(bytes(data))
    source = ShardSource([str(shard)])
    assert len(source) == 1
    assert any("damaged" in notice for notice in said(source))


def test_empty_shards_are_named_and_all_empty_is_an_error(tmp_path: Path) -> None:
    full = write_shard(tmp_path / "full.tar", sample_members("a"))
    empty = write_shard(tmp_path / "empty.tar", {})
    other = write_shard(tmp_path / "other.tar", {"a.npy": b"123", "b.npy": b"1"})
    (tmp_path / "photo.tar").write_bytes(encoded(noise(64, 64)))
    source = ShardSource([str(full), str(empty), str(other), str(tmp_path / "photo.tar")])
    assert len(source) == 1
    empty_ones = next(notice for notice in source.notices if notice.unit == "shard")
    assert [Path(example).name for example in empty_ones.examples] == ["empty.tar", "other.tar"]
    damaged = next(notice for notice in source.notices if notice.unit == "file")
    assert damaged.reason.startswith("not a tar archive") and damaged.examples == (str(tmp_path / "photo.tar"),)
    assert f"2 members ignored: type .npy is not read (a.npy in {other}, b.npy in {other})" in said(source)
    with pytest.raises(ClippyError, match=r"No sample in 1 shards .*2 \.npy"):
        ShardSource([str(other)])


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    plain = write_shard(tmp_path / "s.tar", sample_members("a"))
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ClippyError, match="compressed with gzip"):
        ShardSource([str(tmp_path / "s.tar.gz")])


def test_missing_shards_are_counted_and_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "s-0.tar", sample_members("a"))
    with pytest.raises(ClippyError, match=r"3 of 4 shards of .*s-1\.tar"):
        ShardSource([str(tmp_path / "s-{0..3}.tar")])
    with pytest.raises(ClippyError, match="No file matches"):
        ShardSource([str(tmp_path / "*.tgz")])
    with pytest.raises(ClippyError, match="local files"):
        ShardSource(["https://example.org/s.tar"])
    with pytest.raises(ClippyError, match="more than"):
        ShardSource(["s-{0..99999999999}.tar"])
    with pytest.raises(ClippyError, match=r"s-\{0\.\.3"):
        ShardSource(["s-{0..3"])
    assert len(ShardSource([str(tmp_path / "*.tar")])) == 1


def test_a_shard_that_shrinks_later_breaks_samples_only(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sample_members("a"))
    source = ShardSource([str(shard)])
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(BrokenSampleError, match="shorter"):
        source.read(0)
    shard.unlink()
    with pytest.raises(BrokenSampleError, match="cannot be read"):
        source.read(0)


def test_real_shards(real_data: Path) -> None:
    source = ShardSource([str(real_data / "flickr8k" / "dev-*.tar")])
    assert not source.notices.incomplete
    sample = source.read(len(source) - 1)
    assert sample.image.shape == (224, 224, 3)
    assert len(sample.captions) == 5
