"""Every member of a shard is delivered, or counted and named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data import shard_index
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_shard


def pair(key: str, seed: int = 0) -> dict[str, bytes | str]:
    return {f"{key}.png": encoded(noise(seed=seed)), f"{key}.txt": f"caption of {key}"}


def opened(*shards: Path) -> tuple[ShardSource, list[str]]:
    """A source, and its notices without the names of the shards' folders."""
    source = ShardSource([str(shard) for shard in shards])
    return source, [str(notice).replace(f"{shards[0].parent}/", "") for notice in source.notices]


def keys(source: ShardSource) -> list[str]:
    return [source.read(index).key for index in range(len(source))]


def write_links(path: Path, links: Mapping[str, tuple[bytes, str]], members: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
        for name, (kind, target) in links.items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, target
            archive.addfile(header)
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("padding", [0, 100 << 10])
def test_archives_that_were_joined(tmp_path: Path, form: int, padding: int) -> None:
    joined = b""
    for key in ("a", "b", "long/" * 40 + "c"):  # the last one needs more than one header in some forms
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for name, content in pair(key).items():
                data = content.encode() if isinstance(content, str) else content
                header = tarfile.TarInfo(name)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
        joined += stream.getvalue() + bytes(padding)
    (tmp_path / "s.tar").write_bytes(joined)
    source, said = opened(tmp_path / "s.tar")
    assert keys(source) == ["a", "b", "long/" * 40 + "c"]
    assert said[0].startswith("2 archives: joined behind the end mark of another, and read too (byte ")


def test_what_follows_the_end_mark_and_is_no_archive_is_damage(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", pair("a"))
    shard.write_bytes(shard.read_bytes() + b"something else" * 100)
    source, said = opened(shard)
    assert keys(source) == ["a"] and source.notices.incomplete
    assert said[0].startswith("1 rest of a shard skipped: cut short or damaged (")


def test_keys_with_dots(tmp_path: Path) -> None:
    dotted = (
        pair("shop.example.com_0_v1.5", 1) | pair("x.y/plain", 2) | pair("v1.0") | {"lone.thing.png": encoded(noise())}
    )
    extras = {"x.y/plain.seg.png": b"", "x.y/plain.meta.json": "{}", "z.cls": "3", "z.1234": "x"}
    source, said = opened(write_shard(tmp_path / "s.tar", dotted | extras))
    assert keys(source) == ["shop.example.com_0_v1.5", "x.y/plain", "v1.0"]
    assert source.captions(0) == ("caption of shop.example.com_0_v1.5",)
    np.testing.assert_array_equal(source.read(0).image, noise(seed=1))
    assert said == [
        "1 image skipped: no caption of the same key (lone.thing in s.tar)",
        "2 members ignored: not the image or caption of its key "
        "(x.y/plain.seg.png in s.tar, x.y/plain.meta.json in s.tar)",
        "1 member ignored: type .cls is not read (z.cls in s.tar)",
        "1 member ignored: type unknown is not read (z.1234 in s.tar)",
        "2 samples: the key goes up to the last dot, not to the first "
        "(shop.example.com_0_v1.5 in s.tar, v1.0 in s.tar)",
    ]


def test_links_lead_to_members_of_the_shard_alone(tmp_path: Path) -> None:
    links = {
        "b.png": (tarfile.LNKTYPE, "a.png"),
        "sub/c.png": (tarfile.SYMTYPE, "../a.png"),
        "d.png": (tarfile.SYMTYPE, "/etc/hostname"),
        "e.png": (tarfile.FIFOTYPE, ""),
    }
    texts = {f"{key}.txt": f"caption of {key}" for key in ("b", "sub/c", "d", "e")}
    source, said = opened(write_links(tmp_path / "s.tar", links, pair("a", 3) | texts))
    assert sorted(keys(source)) == ["a", "b", "sub/c"]
    for index in range(3):
        np.testing.assert_array_equal(source.read(index).image, noise(seed=3))
    assert said == [
        "1 member skipped: a sparse or special file (e.png in s.tar)",
        "1 member skipped: a link to what the shard does not hold (d.png in s.tar)",
        "2 captions skipped: no image of the same key (d in s.tar, e in s.tar)",
    ]


@pytest.mark.parametrize("blank", ["", "\n", "\ufeff \n"])
@pytest.mark.parametrize("json_first", [False, True])
def test_an_empty_text_gives_way_to_json(tmp_path: Path, blank: str, json_first: bool) -> None:
    texts = [("a.txt", blank), ("a.json", json.dumps({"captions": ["one", "two"]}))]
    members = dict(texts[::-1] if json_first else texts) | {"a.png": encoded(noise())} | pair("b") | {"b.json": "{}"}
    source, said = opened(write_shard(tmp_path / "s.tar", members))
    assert {source.key(index): source.captions(index) for index in range(2)} == {
        "a": ("one", "two"),
        "b": ("caption of b",),
    }
    assert said == [
        "1 member ignored: the .txt of the same key is the caption (b.json in s.tar)",
        "1 sample: its .txt is empty, so that its .json is read (a in s.tar)",
    ]


def test_too_large_members_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "MAX_CAPTION_BYTES", 20)
    source, said = opened(write_shard(tmp_path / "s.tar", pair("a") | pair("b") | {"b.txt": "x" * 21}))
    assert keys(source) == ["a"] and said[0].startswith("1 member skipped: caption of more than")


def test_a_shard_named_twice_is_refused_and_a_copy_named(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a.tar", pair("a"))
    (tmp_path / "copy.tar").write_bytes(first.read_bytes())
    (tmp_path / "link.tar").symlink_to(first)
    source, said = opened(first, tmp_path / "copy.tar")
    assert len(source) == 2 and said == ["1 shard: has all keys and sizes of another one; both are used (copy.tar)"]
    for patterns in ([str(first), str(tmp_path / "a*.tar")], [str(first), str(tmp_path / "link.tar")]):
        with pytest.raises(ClippyError, match="is named twice"):
            ShardSource(patterns)
