"""The index of a shard: the quick walk sees what tarfile sees, and a kept index is as good as a new one."""

from __future__ import annotations

import dataclasses
import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.data import index_cache
from clippy_cli.data import tar_members as members_of
from clippy_cli.data.index_cache import kept_index
from clippy_cli.data.shard_index import ShardIndex, index_shard
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tar_members import tar_members
from clippy_cli.notices import Notices
from tests.fixtures.data import encoded, noise, write_shard

_NAMES = st.one_of(
    st.builds("{}.{}".format, st.text("ab/é .", max_size=4), st.sampled_from(["jpg", "txt", "json", "tar"])),
    st.integers(90, 300).map(lambda length: "d/" * (length // 2) + "a.jpg"),
)
_MEMBERS = st.lists(
    st.tuples(
        _NAMES,
        st.integers(0, 1100),
        st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]),
        st.sampled_from([0, 7, 1700000000.25]),
        st.sampled_from([0, 1, 10_000_000]),
    ),
    max_size=6,
)
_FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def _archive(members: list[tuple[str, int, bytes, float, int]], form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, size, kind, time, owner in members:
            header = tarfile.TarInfo(name)
            header.type, header.mtime, header.uid = kind, time, owner
            header.size = size if header.isreg() else 0
            try:
                archive.addfile(header, io.BytesIO(b"\x01" * header.size))
            except ValueError:  # ustar has no room for it
                continue
    return stream.getvalue()


def _walk(data: bytes, *, quick: bool = True) -> tuple[object, str | None, list[str]]:
    found: list[object] = []
    notices = Notices()
    said = None
    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.setattr(members_of, "_plain_members", lambda *_: None)
        try:
            for member in tar_members(io.BytesIO(data), len(data), notices):
                found.append(member)  # noqa: PERF402 (what came before an error counts)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            said = str(error)
    return found, said, [str(notice) for notice in notices]


@settings(max_examples=150, deadline=None)
@given(_MEMBERS, _FORMATS, st.data())
def test_the_quick_walk_agrees_with_tarfile(
    members: list[tuple[str, int, bytes, float, int]], form: int, data: st.DataObject
) -> None:
    content = bytearray(_archive(members, form))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, max(len(content) - 10240, 600)))
        content[place] = data.draw(st.sampled_from([0, 32, 48, 49, 55, 120, 255]))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    assert _walk(bytes(content)) == _walk(bytes(content), quick=False)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_common_shards_take_the_quick_walk(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ("./", 0, tarfile.DIRTYPE, 7, 0)
    many = [(f"{number:09}.jpg", 700, tarfile.REGTYPE, 1700000000.25, 0) for number in range(100)]
    content = _archive([folder, *many], form)
    monkeypatch.setattr(members_of, "_TOGETHER", 16)
    plain = members_of._plain_members(io.BytesIO(content), len(content))
    assert plain is not None and plain[0] == _walk(content, quick=False)[0]


def same(one: ShardIndex, two: ShardIndex) -> bool:
    fields = ("keys", "notices", "extensions", "damage")
    return (
        all(getattr(one, field) == getattr(two, field) for field in fields)
        and np.array_equal(one.places, two.places)
        and np.array_equal(one.key_ends, two.key_ends)
    )


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard whose index is kept below ``tmp_path / "home"``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index_cache, "MIN_BYTES", 0)
    members = {"ä.png": encoded(noise()), "ä.txt": "a", "b.png": encoded(noise()), "c.json": "{}"}
    return write_shard(tmp_path / "s.tar", members)


def _kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home" / "clippy" / "shards").glob("*"))


def test_a_kept_index_is_used_until_the_shard_changes(
    tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = ShardSource([str(shard)])
    assert len(_kept(tmp_path)) == 1
    with monkeypatch.context() as patch:
        patch.delattr(index_cache, "index_shard")
        kept = ShardSource([str(shard)])
        assert same(kept_index(shard), index_shard(shard))
    assert (list(kept.notices), kept.describe(), kept.read(0).key) == (list(new.notices), new.describe(), "ä")
    write_shard(shard, {"c.png": encoded(noise()), "c.txt": "c"})
    assert ShardSource([str(shard)]).read(0).key == "c"


@pytest.mark.parametrize("damage", ["cut", "foreign", "pickle", "moved", "bomb", "folder"])
def test_a_useless_kept_index_is_made_anew(tmp_path: Path, shard: Path, damage: str, monkeypatch) -> None:
    good = kept_index(shard)
    (kept,) = _kept(tmp_path)
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-300])
    elif damage == "foreign":
        other = write_shard(tmp_path / "other.tar", {"d.png": encoded(noise()), "d.txt": "d"})
        kept_index(other)
        next(path for path in _kept(tmp_path) if path != kept).replace(kept)
    elif damage == "pickle":
        kept.write_bytes(pickle.dumps(print))
    elif damage == "moved":
        places = good.places.copy()
        places[0, 0] = 1 << 40
        index_cache._save(kept, _identity(shard), dataclasses.replace(good, places=places))
    elif damage == "bomb":
        kept.write_bytes(zlib.compress(bytes(2000)))
        monkeypatch.setattr(index_cache, "MAX_BYTES", 1000)
    else:
        kept.unlink()
        kept.mkdir()
    assert same(kept_index(shard), good)
    monkeypatch.undo()
    if damage != "folder":
        assert index_cache._load(kept, _identity(shard), shard.stat().st_size) is not None


def _identity(shard: Path) -> str:
    stat = shard.stat()
    return f"{index_cache._FORMAT}\n{shard.absolute()}\n{stat.st_size}\n{stat.st_mtime_ns}"


def test_damaged_shards_and_closed_folders_keep_nothing(tmp_path: Path, shard: Path) -> None:
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1500])
    assert kept_index(shard).damage is not None
    assert _kept(tmp_path) == []
    shard.write_bytes(whole)
    (tmp_path / "home").write_text("a file")
    assert same(kept_index(shard), index_shard(shard))


def test_small_shards_are_not_worth_it(tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "MIN_BYTES", shard.stat().st_size + 1)
    kept_index(shard)
    assert _kept(tmp_path) == []
